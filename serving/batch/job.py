"""Restores any number of images with Apache Beam: the library behind `serving.batch_restore`.

    from serving.batch.job import restore_batch

    summary = restore_batch("runs/demo/export", "photos/**.jpg", "restored", beam_options=["--runner=FlinkRunner"])
    print(summary)

The result does not depend on the workers or on how often the job was interrupted and restarted: images are listed once,
sorted; each is written atomically; and `failed.jsonl` is written last, after `untouched.jsonl`.
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
    """The result of a job.

    Attributes:
      restored: number of images written that the model changed.
      untouched: name and reason for each image that the model left unchanged, sorted; the output files are copies of
        the input files.
      skipped: number of images that were already in the output.
      failures: name and reason for each image that could not be restored, sorted.
      others: number of files without an image suffix; these are ignored.
      seconds: wall time.
      failed_file: path of the list of failures.
      untouched_file: path of the list of untouched images of this and earlier jobs.
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
    """Restores all images of a folder or a pattern under the same names.

    Args:
      model: folder or URL of an export, which means its newest version, or of one version.
      pattern: folder, pattern or image, or its URL; see `serving.batch.inputs`.
      output: folder or URL to write to, not the originals' folder; other files in it are left alone.
      overwrite: restore images again that are already in `output`.
      progress: show a progress bar if there is a terminal.
      beam_options: Beam's options, such as ["--runner=FlinkRunner"].

    Returns:
      The summary; a failed image does not stop the others.

    Raises:
      UserError: invalid argument, or the output became unwritable. Files written by then are complete, and the next
        call resumes from there.
    """
    started = time.monotonic()
    model, pattern, output = map(os.fspath, (model, pattern, output))
    options = beam_runner.parse_options(beam_options)
    runner = beam_runner.create(options)
    FileSystems.set_options(options)  # object storage credentials and endpoints
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
        with contextlib.suppress(Exception):  # report the first error
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
    """Adds the steps to a pipeline that restore the named images below the job's source."""
    (
        pipeline
        # Reshuffled: otherwise one worker would take all batches.
        | "Batches" >> beam.Create(list(worker.batches(names)), reshuffle=True)
        | "Restore" >> beam.ParDo(RestoreBatch(job, options))
    )


def _prepare(job: Job) -> dict[str, float]:
    """Removes an earlier job's unfinished files and its list of failures.

    Returns:
      The names of the files in the output, and the times they were written.
    """
    filesystem.delete([filesystem.join(job.output, FAILED)])
    # Tests whether the output is writable, and gets a timestamp from its file system's clock.
    filesystem.write_text(worker.failures_path(job, 0), "")
    files = {file.name: file.updated for file in filesystem.list_files(job.output)}
    _sweep(job.output, list(files))
    return files


def _finish(job: Job, todo: Sequence[str], overwrite: bool) -> tuple[list[Failure], dict[str, str]]:
    """Writes the lists at the end of a job, after checking that every image is in the output or failed.

    Returns:
      The failures, sorted, and the reasons for all untouched images in the output, by name.
    """
    names = _names(job.output)
    there = set(names)
    failures = worker.read_failures(job, names)
    if not overwrite:  # an image that failed in one attempt at its batch may have succeeded in another
        failures = [(name, reason) for name, reason in failures if name not in there]
    failed = {name for name, _ in failures}
    lost = [name for name in todo if name not in there and name not in failed]
    if lost:
        raise UserError(
            f"{len(lost)} pictures are not in {job.output}, such as {lost[0]}: was it changed during the job? run the "
            "same command again"
        )
    if overwrite:  # an earlier job's file must not pass for this job's result
        filesystem.delete([filesystem.join(job.output, name) for name in sorted(failed & there)])
    listed = _gather_untouched(job, set(todo), there - failed)
    filesystem.write_text(filesystem.join(job.output, FAILED), worker.failure_lines(failures))
    _sweep(job.output, names)
    return failures, listed


def _gather_untouched(job: Job, replaced: Set[str] = frozenset(), there: Set[str] | None = None) -> dict[str, str]:
    """Merges the files that workers left into `untouched.jsonl`, then deletes them.

    Args:
      job: the job.
      replaced: names of images that this job restores again: only lines from its own workers count for them.
      there: names of the images in the output, once the job has finished; None before.

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
    """Removes unfinished files and workers' failure files; `_gather_untouched` removes their untouched lists."""
    filesystem.delete([filesystem.join(output, name) for name in names if worker.is_swept(name)])


def _user_error(error: BaseException) -> str | None:
    """Extracts a worker's UserError message: most runners wrap it, with its traceback, in an error of their own."""
    found = re.search(r"UserError: (.+?)(?: \[while running .*)?$", f"{type(error).__name__}: {error}", re.MULTILINE)
    return found[1] if found else None


def _is_news(record: logging.LogRecord) -> bool:
    """Returns False for log records of a UserError's long traceback: `restore_batch` raises its message anyway."""
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
    """Turns any error from a file system into a UserError that names the flag."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise UserError(f"--{flag}={value}: cannot be {done}: {reason}; name a folder that can") from error
