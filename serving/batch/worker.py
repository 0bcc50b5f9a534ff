"""What a worker of batch restoration does: the pictures of a batch one by one, each written whole.

    OUTPUT/
      holiday/0001.jpg                   restored; on its way it had another name, see `storage.create_whole`
      .failed-6f9c…-00017.jsonl          which pictures of batch 17 could not be restored, and why
      .untouched-6f9c…-a04e….jsonl       which pictures the model left as they were, and why

A batch may be restored again, or by two workers at once, as Beam's runners do after a fault: it leads to the same
bytes. What was on its way when a process was killed, and the failures, are removed at the end of the job, and at the
start of the next one if that end never came.

An untouched picture is copied, and the next job skips what is there. So its line is in the output before its copy is:
a worker gathers some copies, writes their lines to a file that nobody writes again, and then the copies. At the end of
the job `untouched.jsonl` is made of these files, and at the start of the next one if that end never came. A line whose
picture is not there is kept until a job has finished: a worker that outlived its job may still write the copy.

Failures leave a batch through a file, not through Beam: on DaskRunner a GroupByKey over the failures of a thousand
batches takes two minutes, and over those of four thousand nine.
"""

from __future__ import annotations

import json
import math
import re
import uuid
from collections.abc import Iterator, Sequence
from typing import Callable, NamedTuple

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.utils.shared import Shared

from common.command_line import UserError
from common.storage import filesystem
from serving.restoring import photo, untouched_pictures
from serving.restoring.local import LoadedModel
from serving.restoring.refusal import Refused

_FAILED = re.compile(r"\.failed-([0-9a-f]{32})-\d{5}\.jsonl")
_UNTOUCHED = re.compile(r"\.untouched-([0-9a-f]{32})-[0-9a-f]{32}\.jsonl")

# Small enough to go round among the workers, and not so many that the runner is busy with them.
_PICTURES_IN_BATCH = 16
_FEW_BATCHES, _MANY_BATCHES = 64, 4096
_GATHERED_BYTES = 16 << 20  # of copies that wait in memory for their lines to be written: few files, and little memory

Failure = tuple[str, str]  # name and reason


class Job(NamedTuple):
    """What all workers are told: paths that are absolute, or URLs.

    Attributes:
      model: a version's folder.
      source: the folder that the pictures' names are below.
      output: where the same names are written.
      id: 32 hexadecimal digits. Workers whose main process was killed go on for a while: what they leave is not this
        job's.
    """

    model: str
    source: str
    output: str
    id: str


class RestoreBatch(filesystem.FileDoFn):
    """A batch of `batches` -> nothing; its pictures, or their failures, are in the output."""

    def __init__(self, job: Job, options: PipelineOptions) -> None:
        super().__init__(options)
        self._job = job
        self._shared = Shared()

    def setup(self) -> None:
        super().setup()
        # One model in a process, however many threads it has and however often Beam sets this up.
        self._model: LoadedModel = self._shared.acquire(lambda: LoadedModel(self._job.model))
        self._read = filesystem.reader(self._job.source)

    def process(self, batch: str) -> None:
        index, names = json.loads(batch)
        copies = _Copies(self._job, self._write)
        failures = [failure for failure in (self._restore(name, copies) for name in names) if failure]
        copies.flush()
        path = failures_path(self._job, index)
        if failures:
            self._write(path, failure_lines(failures).encode())
        else:
            filesystem.delete([path])  # another attempt's, whose trouble has passed

    def _restore(self, name: str, copies: _Copies) -> Failure | None:
        try:
            original = self._read(name)
        except FileNotFoundError:
            return name, "gone since the folder was listed"
        except Exception as error:  # each file system has errors of its own, and the other pictures go on
            return name, _reason(error)
        try:
            picture = photo.parse(original)
            result = untouched_pictures.result(picture, self._model.ask(picture.request))
        except Exception as error:  # so has each decoder
            return name, _reason(error)
        if result.untouched:
            copies.add(name, result.untouched, result.content)
        else:
            self._write(filesystem.join(self._job.output, name), result.content)
        return None

    def _write(self, path: str, content: bytes) -> None:
        """Ends the job if it cannot: no other picture could be written either."""
        try:
            with filesystem.create_whole(path) as file:
                file.write(content)
        except Exception as error:  # as above
            raise UserError(
                f"{path}: cannot be written: {_reason(error)}; mend that, and the same command goes on from here"
            ) from error


class _Copies:
    """Untouched pictures of a batch that are not in the output yet."""

    def __init__(self, job: Job, write: Callable[[str, bytes], None]) -> None:
        self._job, self._write = job, write
        self._reasons: dict[str, str] = {}
        self._contents: dict[str, bytes] = {}

    def add(self, name: str, reason: str, content: bytes) -> None:
        """Takes one, and writes all of them once they are many."""
        self._reasons[name], self._contents[name] = reason, content
        if sum(map(len, self._contents.values())) >= _GATHERED_BYTES:
            self.flush()

    def flush(self) -> None:
        """Writes their lines, then themselves."""
        if not self._contents:
            return
        # A name of its own: were it the batch's, a second attempt would replace the lines of the first one's copies.
        path = filesystem.join(self._job.output, f".untouched-{self._job.id}-{uuid.uuid4().hex}.jsonl")
        self._write(path, untouched_pictures.lines(self._reasons).encode())
        for name, content in self._contents.items():
            self._write(filesystem.join(self._job.output, name), content)
        self._reasons, self._contents = {}, {}


def batches(names: Sequence[str]) -> Iterator[str]:
    """Cuts names into batches.

    Yields:
      JSON [index, [name, …]], in ASCII: Beam's coders refuse text that is no UTF-8, which a file may be called.
    """
    size = max(1, min(_PICTURES_IN_BATCH, len(names) // _FEW_BATCHES), math.ceil(len(names) / _MANY_BATCHES))
    for index, start in enumerate(range(0, len(names), size)):
        yield json.dumps([index, names[start : start + size]])


def failures_path(job: Job, batch: int) -> str:
    """Where a batch leaves its failures until the end of the job."""
    return filesystem.join(job.output, f".failed-{job.id}-{batch:05}.jsonl")


def is_leftover(name: str) -> bool:
    """Whether a file of the output is one that a job removes."""
    return is_swept(name) or _UNTOUCHED.fullmatch(name) is not None


def is_swept(name: str) -> bool:
    """Whether a file of the output is a leftover that says nothing to the next job."""
    return filesystem.is_partial(name) or _FAILED.fullmatch(name) is not None


def count_written(output: str, newest: float) -> int:
    """How many pictures are in the output that were written after a time, in the file system's own seconds."""
    return sum(
        file.updated > newest and not is_leftover(file.name) and file.name != untouched_pictures.LIST
        for file in filesystem.list_files(output)
    )


class Untouched(NamedTuple):
    """What the output says about untouched pictures: reasons by name.

    Attributes:
      listed: by `untouched.jsonl`.
      earlier: by workers of other jobs.
      own: by this job's workers.
      files: the paths of what workers left.
    """

    listed: dict[str, str]
    earlier: dict[str, str]
    own: dict[str, str]
    files: list[str]


def read_untouched(job: Job) -> Untouched:
    """Reads `untouched.jsonl` and what workers left beside it.

    It does not list the whole output. Called after that was listed, it finds the line of every copy that was there.

    Raises:
      UserError: one of the files is no list of ours.
    """
    path = filesystem.join(job.output, untouched_pictures.LIST)
    listed = untouched_pictures.parse(filesystem.read_bytes(path), path) if filesystem.exists(path) else {}
    found = Untouched(listed, {}, {}, [])
    for file in filesystem.list_prefix(filesystem.join(job.output, ".untouched-")):
        match = _UNTOUCHED.fullmatch(file.rpartition("/")[2])
        if match:
            reasons = found.own if match[1] == job.id else found.earlier
            reasons.update(untouched_pictures.parse(filesystem.read_bytes(file), file))
            found.files.append(file)
    return found


def read_failures(job: Job, names: Sequence[str]) -> list[Failure]:
    """Reads what the job's workers left in the output.

    Args:
      job: which.
      names: all files in its output.

    Returns:
      The failures of all batches, sorted by name.
    """
    matches = [match for match in map(_FAILED.fullmatch, names) if match and match[1] == job.id]
    contents = [filesystem.read_bytes(filesystem.join(job.output, match[0])) for match in matches]
    lines = [json.loads(line) for content in contents for line in content.splitlines()]
    return sorted((line["filename"], line["reason"]) for line in lines)


def failure_lines(failures: Sequence[Failure]) -> str:
    """The failures as JSON, one a line."""
    return "".join(json.dumps({"filename": name, "reason": reason}) + "\n" for name, reason in failures)


def _reason(error: Exception) -> str:
    """One line for a person."""
    text = " ".join(str(getattr(error, "strerror", None) or error).split())
    expected = isinstance(error, (Refused, photo.UnreadablePhoto, OSError, ValueError))
    return text if expected and text else f"{type(error).__name__}: {text}"
