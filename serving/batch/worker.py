"""A batch restoration worker: restores the images of a batch one by one and writes each atomically.

    OUTPUT/
      holiday/0001.jpg                   restored; has another name while being written, see `filesystem.create_whole`
      .failed-6f9c…-00017.jsonl          the images of batch 17 that could not be restored, and why
      .untouched-6f9c…-a04e….jsonl       images that the model left unchanged, and why

After a fault, Beam's runners may restore a batch again, or with two workers at once; the resulting bytes are the same.
Failure files, and partial files of killed processes, are removed at the end of the job, or at the start of the next one
if the job never ended.

Untouched images are copied, and the next job skips images that exist. So an image's line must be in the output before
its copy: a worker collects some copies, writes their lines to a new file that is never rewritten, then writes the
copies. At the end of the job, these files are merged into `untouched.jsonl`, or at the start of the next one if the job
never ended. A line without its image is kept until a job has finished, because a worker that outlived its job may still
write the copy.

Failures are passed through files rather than through Beam: on DaskRunner, a GroupByKey over the failures of a thousand
batches takes two minutes, and over those of four thousand, nine minutes.
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

# Batches are small enough to be spread over the workers, but not so many that they burden the runner.
_PICTURES_IN_BATCH = 16
_FEW_BATCHES, _MANY_BATCHES = 64, 4096
_GATHERED_BYTES = 16 << 20  # copies held in memory until their lines are written: few files, and little memory

Failure = tuple[str, str]  # name and reason


class Job(NamedTuple):
    """The job as all workers see it; paths are absolute or URLs.

    Attributes:
      model: a version's folder.
      source: the folder that the images' names are relative to.
      output: the folder where the same names are written.
      id: 32 hexadecimal digits. Workers whose main process was killed run on for a while; the id tells their files from
        this job's.
    """

    model: str
    source: str
    output: str
    id: str


class RestoreBatch(filesystem.FileDoFn):
    """Restores a batch from `batches`; emits nothing, as images and failures are written to the output."""

    def __init__(self, job: Job, options: PipelineOptions) -> None:
        super().__init__(options)
        self._job = job
        self._shared = Shared()

    def setup(self) -> None:
        super().setup()
        # One model per process, no matter how many threads it has and how often Beam calls `setup`.
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
            filesystem.delete([path])  # failures of an earlier attempt that no longer occur

    def _restore(self, name: str, copies: _Copies) -> Failure | None:
        try:
            original = self._read(name)
        except FileNotFoundError:
            return name, "gone since the folder was listed"
        except Exception as error:  # file systems raise their own types; continue with the other images
            return name, _reason(error)
        try:
            picture = photo.parse(original)
            result = untouched_pictures.result(picture, self._model.ask(picture.request))
        except Exception as error:  # decoders raise their own types, too
            return name, _reason(error)
        if result.untouched:
            copies.add(name, result.untouched, result.content)
        else:
            self._write(filesystem.join(self._job.output, name), result.content)
        return None

    def _write(self, path: str, content: bytes) -> None:
        """Writes a file atomically; a failure ends the job, because no other image could be written either."""
        try:
            with filesystem.create_whole(path) as file:
                file.write(content)
        except Exception as error:  # file systems raise their own types
            raise UserError(
                f"{path}: cannot be written: {_reason(error)}; mend that, and the same command goes on from here"
            ) from error


class _Copies:
    """A batch's untouched images that are not in the output yet."""

    def __init__(self, job: Job, write: Callable[[str, bytes], None]) -> None:
        self._job, self._write = job, write
        self._reasons: dict[str, str] = {}
        self._contents: dict[str, bytes] = {}

    def add(self, name: str, reason: str, content: bytes) -> None:
        """Adds an image; writes all of them once they exceed `_GATHERED_BYTES`."""
        self._reasons[name], self._contents[name] = reason, content
        if sum(map(len, self._contents.values())) >= _GATHERED_BYTES:
            self.flush()

    def flush(self) -> None:
        """Writes the lines, then the images."""
        if not self._contents:
            return
        # A unique name: if named after the batch, a second attempt would overwrite the lines of the first one's copies.
        path = filesystem.join(self._job.output, f".untouched-{self._job.id}-{uuid.uuid4().hex}.jsonl")
        self._write(path, untouched_pictures.lines(self._reasons).encode())
        for name, content in self._contents.items():
            self._write(filesystem.join(self._job.output, name), content)
        self._reasons, self._contents = {}, {}


def batches(names: Sequence[str]) -> Iterator[str]:
    """Cuts names into batches.

    Yields:
      JSON [index, [name, …]] in ASCII: file names may be invalid UTF-8, which Beam's coders reject.
    """
    size = max(1, min(_PICTURES_IN_BATCH, len(names) // _FEW_BATCHES), math.ceil(len(names) / _MANY_BATCHES))
    for index, start in enumerate(range(0, len(names), size)):
        yield json.dumps([index, names[start : start + size]])


def failures_path(job: Job, batch: int) -> str:
    """Returns the path of a batch's failure file, which exists until the end of the job."""
    return filesystem.join(job.output, f".failed-{job.id}-{batch:05}.jsonl")


def is_leftover(name: str) -> bool:
    """Whether a file in the output is one that jobs remove: a partial file or a worker's list."""
    return is_swept(name) or _UNTOUCHED.fullmatch(name) is not None


def is_swept(name: str) -> bool:
    """Whether a file in the output is a leftover that the next job does not need: a partial or a failure file."""
    return filesystem.is_partial(name) or _FAILED.fullmatch(name) is not None


def count_written(output: str, newest: float) -> int:
    """Counts the images in the output written after `newest`, in seconds of the file system's clock."""
    return sum(
        file.updated > newest and not is_leftover(file.name) and file.name != untouched_pictures.LIST
        for file in filesystem.list_files(output)
    )


class Untouched(NamedTuple):
    """The output's records of untouched images: reasons by name.

    Attributes:
      listed: from `untouched.jsonl`.
      earlier: from workers of other jobs.
      own: from this job's workers.
      files: paths of the workers' files.
    """

    listed: dict[str, str]
    earlier: dict[str, str]
    own: dict[str, str]
    files: list[str]


def read_untouched(job: Job) -> Untouched:
    """Reads `untouched.jsonl` and the files that workers left next to it.

    Does not list the whole output. If called after listing the output, it finds the line of every copy in that listing.

    Raises:
      UserError: one of the files is not a list of untouched images.
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
    """Reads the failure files that the job's workers left in the output.

    Args:
      job: the job.
      names: names of all files in its output.

    Returns:
      The failures of all batches, sorted by name.
    """
    matches = [match for match in map(_FAILED.fullmatch, names) if match and match[1] == job.id]
    contents = [filesystem.read_bytes(filesystem.join(job.output, match[0])) for match in matches]
    lines = [json.loads(line) for content in contents for line in content.splitlines()]
    return sorted((line["filename"], line["reason"]) for line in lines)


def failure_lines(failures: Sequence[Failure]) -> str:
    """Formats the failures as JSON, one per line."""
    return "".join(json.dumps({"filename": name, "reason": reason}) + "\n" for name, reason in failures)


def _reason(error: Exception) -> str:
    """Describes an error in one line for users; unexpected types are named."""
    text = " ".join(str(getattr(error, "strerror", None) or error).split())
    expected = isinstance(error, (Refused, photo.UnreadablePhoto, OSError, ValueError))
    return text if expected and text else f"{type(error).__name__}: {text}"
