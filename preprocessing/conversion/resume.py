"""Taking up a job that was killed: what it must have in common with the one that goes on.

A job writes down what it was asked to do, and a digest of what it reads, before all else (`job.json`), and keeps its
shards with a manifest each; see `shards`. The next one with the same arguments and input checks every shard by its
manifest, makes those that are not whole, and ends with the same bytes as a job that was never killed. With others it
is refused, for shards of two jobs would end up in one dataset. Which runner does the work, and with how many workers,
is no part of it.
"""

import logging
from typing import Any, NamedTuple, Optional

from common.command_line import UserError
from common.storage import filesystem
from preprocessing.conversion.job import VERSION, Job
from preprocessing.conversion.shards import JobFolders
from preprocessing.dataset import schema

_LOG = logging.getLogger(__name__)

_FLAGS = {"split_sizes": "splits"}  # where a flag has another name than its argument


class State(NamedTuple):
    """What an output folder holds.

    Attributes:
      finished: the dataset_info.json of the dataset that the job asks for, if it is there.
      unfinished: whether it holds the same job, begun.
    """

    finished: Optional[dict[str, Any]]
    unfinished: bool


def find(job: Job, folders: JobFolders, overwrite: bool) -> State:
    """Looks at the output folder; changes nothing, but for what is left in a finished dataset's.

    Args:
      job: what is asked for, with or without its input's digests.
      folders: the job's.
      overwrite: replace a finished dataset, or a job with other arguments.

    Raises:
      UserError: the folder holds a dataset or a job with another `job`, and is not to be overwritten.
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


def begin(job: Job, folders: JobFolders, state: State) -> None:
    """Prepares the output folder: clears it, or leaves a job that is taken up only its whole files."""
    if not state.unfinished:
        clear(folders)
        filesystem.write_json(folders.job, job.to_json())
        return
    partial = [file.name for file in filesystem.list_files(folders.unfinished) if filesystem.is_partial(file.name)]
    filesystem.delete([filesystem.join(folders.unfinished, name) for name in partial])
    staged, published = filesystem.list_files(folders.staged), filesystem.list_files(folders.output, recursive=False)
    whole = sum(schema.is_shard_name(file.name) for files in (staged, published) for file in files)
    _LOG.info("%s: goes on with a job that was ended; %d shards are there", folders.output, whole)


def clear(folders: JobFolders, keep_rejected: bool = False) -> None:
    """Removes a dataset, finished or not: what describes it first, so that it never describes missing shards."""
    describes = [schema.dataset_path(folders.output, schema.DATASET_INFO), folders.job]
    if not keep_rejected:
        describes.append(schema.dataset_path(folders.output, schema.REJECTED))
    filesystem.delete(describes)
    files = filesystem.list_files(folders.output, recursive=False)
    filesystem.delete([filesystem.join(folders.output, file.name) for file in files if schema.is_shard_name(file.name)])
    filesystem.delete_tree(folders.unfinished)


def _refuse_other(job: Job, there: dict[str, Any], where: str) -> None:
    differences = _differences(job, there)
    if differences:
        raise UserError(
            f"{where}, made with {', '.join(differences)}; give the same arguments, another folder, or --overwrite to "
            "replace it"
        )


def _differences(job: Job, there: dict[str, Any]) -> list[str]:
    version = there.get("version", VERSION)  # a dataset has none, nor has a job of version 0.1
    if version != VERSION:
        return [f"another version of this program (jobs of version {version} instead of {VERSION})"]
    asked, arguments = job.described(), there.get("arguments", {})
    found = [
        f"--{_FLAGS.get(name, name)}={arguments.get(name)} instead of {value}"
        for name, value in asked["arguments"].items()
        if arguments.get(name) != value
    ]
    if found:
        return found
    read = there.get("input", {})
    return [
        f"other content of --{name} ({_sizes(read.get(name))} instead of {_sizes(now)})"
        for name, now in asked["input"].items()
        if read.get(name) != now
    ]


def _sizes(described: Optional[dict[str, Any]]) -> str:
    if described is None:
        return "not recorded"
    return ", ".join(f"{value} {name}" for name, value in described.items() if name != "sha256")
