"""Decides whether a killed job can be resumed: arguments and input must be the same.

First of all, a job records its arguments and a digest of its input in `job.json`; it writes a manifest per shard (see
`shards`). The next job with the same arguments and input checks every shard against its manifest, rewrites the
incomplete ones, and produces the same bytes as an uninterrupted job. A job with other arguments or input is refused,
because one dataset would then mix the shards of two jobs. The runner and the number of workers may differ.
"""

import logging
from typing import Any, NamedTuple, Optional

from common.command_line import UserError
from common.storage import filesystem
from preprocessing.conversion.shards import JobFolders
from preprocessing.dataset import schema

_LOG = logging.getLogger(__name__)

_FLAGS = {"split_sizes": "splits"}  # argument -> flag, where the names differ


class State(NamedTuple):
    """The state of an output folder.

    Attributes:
      finished: the dataset_info.json of this job's dataset if it is finished, else None.
      unfinished: whether the folder holds this same job, unfinished.
    """

    finished: Optional[dict[str, Any]]
    unfinished: bool


def find(job: dict[str, Any], folders: JobFolders, overwrite: bool) -> State:
    """Examines the output folder. Changes nothing, except that it deletes a finished dataset's leftover job folder.

    Args:
      job: JSON objects `arguments` and `input`.
      folders: the job's folders.
      overwrite: replace a finished dataset, or a job with other arguments.

    Raises:
      UserError: the folder holds the dataset or unfinished job of another `job`, and `overwrite` is not set.
    """
    if filesystem.exists(schema.dataset_path(folders.output, schema.DATASET_INFO)):
        if overwrite:
            return State(None, False)
        info = schema.read_dataset_info(folders.output)
        _refuse_other(job, info, f"--output_dir={folders.output}: holds a finished dataset")
        filesystem.delete_tree(folders.unfinished)  # the job was killed between its last two steps
        return State(info, False)
    if not filesystem.exists(folders.job):
        return State(None, False)
    begun = filesystem.read_json(folders.job)
    if overwrite and _differences(job, begun):
        return State(None, False)
    _refuse_other(job, begun, f"--output_dir={folders.output}: holds an unfinished job")
    return State(None, True)


def begin(job: dict[str, Any], folders: JobFolders, state: State) -> None:
    """Prepares the output folder: clears it or, to resume a job, deletes only the partial files."""
    if not state.unfinished:
        clear(folders)
        filesystem.write_json(folders.job, job)
        return
    partial = [file.name for file in filesystem.list_files(folders.unfinished) if filesystem.is_partial(file.name)]
    filesystem.delete([filesystem.join(folders.unfinished, name) for name in partial])
    staged, published = filesystem.list_files(folders.staged), filesystem.list_files(folders.output, recursive=False)
    whole = sum(schema.is_shard_name(file.name) for files in (staged, published) for file in files)
    _LOG.info("%s: goes on with a job that was ended; %d shards are there", folders.output, whole)


def clear(folders: JobFolders, keep_rejected: bool = False) -> None:
    """Deletes a dataset, finished or not, starting with its descriptions, which must never list missing shards."""
    describes = [schema.dataset_path(folders.output, schema.DATASET_INFO), folders.job]
    if not keep_rejected:
        describes.append(schema.dataset_path(folders.output, schema.REJECTED))
    filesystem.delete(describes)
    files = filesystem.list_files(folders.output, recursive=False)
    filesystem.delete([filesystem.join(folders.output, file.name) for file in files if schema.is_shard_name(file.name)])
    filesystem.delete_tree(folders.unfinished)


def _refuse_other(job: dict[str, Any], there: dict[str, Any], where: str) -> None:
    differences = _differences(job, there)
    if differences:
        raise UserError(
            f"{where}, made with {', '.join(differences)}; give the same arguments, another folder, or --overwrite to "
            "replace it"
        )


def _differences(job: dict[str, Any], there: dict[str, Any]) -> list[str]:
    arguments = there.get("arguments", {})
    found = [
        f"--{_FLAGS.get(name, name)}={arguments.get(name)} instead of {value}"
        for name, value in job["arguments"].items()
        if arguments.get(name) != value
    ]
    if found:
        return found
    read = there.get("input", {})
    return [
        f"other content of --{name} ({_sizes(read.get(name))} instead of {_sizes(now)})"
        for name, now in job["input"].items()
        if read.get(name) != now
    ]


def _sizes(described: Optional[dict[str, Any]]) -> str:
    if described is None:
        return "not recorded"
    return ", ".join(f"{value} {name}" for name, value in described.items() if name != "sha256")
