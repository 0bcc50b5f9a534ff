"""Restores any number of pictures by Apache Beam: the library behind `serving.batch_restore`.

    from serving.batch.job import restore_batch

    summary = restore_batch("runs/demo/export", "photos/**.jpg", "restored", beam_options=["--runner=FlinkRunner"])
    print(summary)

The result does not depend on the workers, nor on how often the job was interrupted and started again: pictures are
listed once, sorted, each is written whole, and `failed.jsonl` comes last, after `untouched.jsonl`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
import re
import time
import uuid
from collections.abc import Iterator, Sequence, Set

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from common.beam import runner as beam_runner
from common.beam.progress import WatchedProgress
from common.command_line import UserError
from common.storage import filesystem
from serving.batch import worker
from serving.batch.inputs import find_pictures
from serving.batch.worker import Failure, Job, RestoreBatch
from serving.restoring import untouched_pictures
from serving.restoring.local import find_version

_LOG = logging.getLogger(__name__)

FAILED = untouched_pictures.FAILED


@dataclasses.dataclass
class BatchSummary(untouched_pictures.Counts):
    """What happened.

    Attributes:
      restored: pictures written that the model changed.
      untouched: name and reason of each picture that the model left as it was, sorted; these are copies of the input
        files.
      skipped: pictures that the output had already.
      failures: name and reason of each picture that could not be restored, sorted.
      others: files without a picture's suffix, left alone.
      seconds: wall time.
      failed_file: where the failures are listed.
      untouched_file: where the untouched pictures of this job and of earlier ones are listed.
    """

    restored: int
    untouched: list[tuple[str, str]]
    skipped: int
    failures: list[Failure]
    others: int
    seconds: float
    failed_file: str
    untouched_file: str

    def __str__(self) -> str:
        text = f"restored {self.restored}{self.untouched_text(self.untouched_file)}, failed {len(self.failures)}"
        if self.failures:
            text += f" (listed in {self.failed_file})"
        if self.skipped:
            text += f", skipped {self.skipped} that are there already (--overwrite restores them again)"
        if self.others:
            text += f", left alone {self.others} files that are no pictures"
        done = self.restored + len(self.untouched)
        if done:
            text += f"; {self.seconds:.1f} s, {done / self.seconds:.2f} images/s"
        return text


def restore_batch(
    model: str | os.PathLike,
    pattern: str | os.PathLike,
    output: str | os.PathLike,
    *,
    overwrite: bool = False,
    progress: bool = True,
    beam_options: Sequence[str] = (),
) -> BatchSummary:
    """Restores all pictures of a folder or a pattern under the same names.

    Args:
      model: export folder or a version's own, or its URL; see `loaded_model.find_version`.
      pattern: folder, pattern or picture, or its URL; see `batch_input`.
      output: folder or URL to write to, not the originals' own; other files in it stay untouched.
      overwrite: restore again what `output` has already.
      progress: show a bar, where there is a terminal.
      beam_options: Beam's own, such as ["--runner=FlinkRunner"].

    Returns:
      The summary; a picture that fails does not stop the others.

    Raises:
      UserError: an argument cannot be used, or the output became unwritable; what is written by then is whole, and
        the next call goes on from there.
    """
    started = time.monotonic()
    model, pattern, output = map(os.fspath, (model, pattern, output))
    options = beam_runner.parse_options(beam_options)
    runner = beam_runner.create(options)
    FileSystems.set_options(options)  # credentials and endpoints of object storage
    for flag, path in (("--model", model), ("--input", pattern), ("--output", output)):
        filesystem.check(path, flag)
    output = filesystem.absolute(output).rstrip("/")
    with _blaming("model", model, "read"):
        version = find_version(model)
    with _blaming("input", pattern, "read"):
        pictures = find_pictures(pattern, output)
    job = Job(version, pictures.folder, output, uuid.uuid4().hex)
    with _blaming("output", output, "written"):
        there = _prepare(job)
        newest = max(there.values(), default=0.0)
        todo = [name for name in pictures.names if overwrite or name not in there]
        _gather_untouched(job, set(todo) if overwrite else frozenset())
    skipped = len(pictures.names) - len(todo)
    _LOG.info("restoring %d of %d pictures of %s with %s", len(todo), len(pictures.names), pictures.folder, version)

    try:
        if todo:
            written = functools.partial(worker.count_written, output, newest)
            bar = WatchedProgress(written, len(todo), unit="image", disable=not progress or None)
            with _quietened(), bar, beam_runner.pipeline(runner, options) as pipeline:
                build(pipeline, job, todo, options)
        failures, listed = _finish(job, todo, overwrite)
    except BaseException as error:
        with contextlib.suppress(Exception):  # the first error is the one to tell
            _sweep(output, _names(output))
            _gather_untouched(job)
        said = _user_error(error)
        if said:
            raise UserError(said) from error
        raise
    copied = sorted((name, listed[name]) for name in set(todo) & listed.keys())
    return BatchSummary(
        restored=len(todo) - len(failures) - len(copied),
        untouched=copied,
        skipped=skipped,
        failures=failures,
        others=pictures.others,
        seconds=time.monotonic() - started,
        failed_file=filesystem.join(output, FAILED),
        untouched_file=filesystem.join(output, untouched_pictures.LIST),
    )


def build(pipeline: beam.Pipeline, job: Job, names: Sequence[str], options: PipelineOptions) -> None:
    """Adds to a pipeline what restores the named pictures, below the job's source."""
    (
        pipeline
        # Reshuffled, or one worker would take all.
        | "Batches" >> beam.Create(list(worker.batches(names)), reshuffle=True)
        | "Restore" >> beam.ParDo(RestoreBatch(job, options))
    )


def _prepare(job: Job) -> dict[str, float]:
    """Removes what an earlier job left unfinished, and its list of failures.

    Returns:
      The names of the files in the output, and when they were written.
    """
    filesystem.delete([filesystem.join(job.output, FAILED)])
    # Shows whether the output can be written, and by which clock.
    filesystem.write_text(worker.failures_path(job, 0), "")
    files = {file.name: file.updated for file in filesystem.list_files(job.output)}
    _sweep(job.output, list(files))
    return files


def _finish(job: Job, todo: Sequence[str], overwrite: bool) -> tuple[list[Failure], dict[str, str]]:
    """Lists the failures; every picture must be there, or among them, before `failed.jsonl` says so.

    Returns:
      The failures, sorted, and the reasons of all untouched pictures in the output, by name.
    """
    names = _names(job.output)
    there = set(names)
    failures = worker.read_failures(job, names)
    if not overwrite:  # a picture that failed in one attempt at its batch may be there by another
        failures = [(name, reason) for name, reason in failures if name not in there]
    failed = {name for name, _ in failures}
    lost = [name for name in todo if name not in there and name not in failed]
    if lost:
        raise UserError(
            f"{len(lost)} pictures are not in {job.output}, such as {lost[0]}: was it changed during the job? run the "
            "same command again"
        )
    if overwrite:  # what an earlier job made of a picture is not this one's result
        filesystem.delete([filesystem.join(job.output, name) for name in sorted(failed & there)])
    listed = _gather_untouched(job, set(todo), there - failed)
    filesystem.write_text(filesystem.join(job.output, FAILED), worker.failure_lines(failures))
    _sweep(job.output, names)
    return failures, listed


def _gather_untouched(job: Job, replaced: Set[str] = frozenset(), there: Set[str] | None = None) -> dict[str, str]:
    """Brings `untouched.jsonl` up to date by what workers left, and removes that.

    Args:
      job: which.
      replaced: names of pictures of which only this job's workers know.
      there: names of the pictures that are in the output, once the job has finished; None before.

    Returns:
      The reasons by name.
    """
    found = worker.read_untouched(job)
    earlier = {**found.listed, **found.earlier}
    reasons = {name: reason for name, reason in earlier.items() if name not in replaced} | found.own
    if there is not None:
        reasons = {name: reason for name, reason in reasons.items() if name in there}
    if there is not None or reasons != found.listed:
        filesystem.write_text(filesystem.join(job.output, untouched_pictures.LIST), untouched_pictures.lines(reasons))
    filesystem.delete(found.files)
    return reasons


def _names(output: str) -> list[str]:
    return [file.name for file in filesystem.list_files(output)]


def _sweep(output: str, names: Sequence[str]) -> None:
    """Removes unfinished files and failures; workers' lines about untouched pictures are `_gather_untouched`'s."""
    filesystem.delete([filesystem.join(output, name) for name in names if worker.is_swept(name)])


def _user_error(error: BaseException) -> str | None:
    """The message of a UserError in a worker, which most runners wrap up, traceback and all, in an error of theirs."""
    found = re.search(r"UserError: (.+?)(?: \[while running .*)?$", f"{type(error).__name__}: {error}", re.MULTILINE)
    return found[1] if found else None


def _is_news(record: logging.LogRecord) -> bool:
    """False for a UserError's traceback, page after page of it: `restore_batch` raises what it says."""
    error = record.exc_info[1] if record.exc_info else None
    return "common.command_line.UserError: " not in record.getMessage() and not isinstance(error, UserError)


@contextlib.contextmanager
def _quietened() -> Iterator[None]:
    handlers = list(logging.getLogger().handlers)
    for handler in handlers:
        handler.addFilter(_is_news)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(_is_news)


@contextlib.contextmanager
def _blaming(flag: str, value: str, done: str) -> Iterator[None]:
    """Turns a file system's error, of whatever class, into one that names the flag."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise UserError(f"--{flag}={value}: cannot be {done}: {reason}; name a folder that can") from error
