"""Restores a folder of photos through a server: several in flight, resumable, nothing overwritten unasked."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import statistics
import sys
import time
from concurrent import futures

from tqdm import tqdm

from configs.command_line import UserError
from serving import photo
from serving.restorer import Refused, Restorer


@dataclasses.dataclass
class Summary:
    """What happened to a folder.

    Attributes:
      restored: pictures written.
      skipped: pictures that the output folder had already.
      failures: relative path and reason of each picture that could not be restored.
      others: files without a picture's suffix, left alone.
      seconds: wall time.
      request_seconds: the server's answering time for each restored picture.
    """

    restored: int = 0
    skipped: int = 0
    failures: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    others: int = 0
    seconds: float = 0.0
    request_seconds: list[float] = dataclasses.field(default_factory=list)

    def __str__(self) -> str:
        text = f"restored {self.restored}, failed {len(self.failures)}"
        if self.skipped:
            text += f", skipped {self.skipped} that are there already (--overwrite restores them again)"
        if self.others:
            text += f", left alone {self.others} files that are no pictures"
        if self.restored:
            median = 1000 * statistics.median(self.request_seconds)
            text += f"; {self.restored / self.seconds:.2f} images/s, median {median:.0f} ms a request"
        return text


def _listing(source: pathlib.Path, output_dir: pathlib.Path) -> tuple[list[pathlib.Path], int]:
    """The pictures to restore, relative to the input folder, and how many other files there are."""
    if source.is_file():
        return [pathlib.Path(source.name)], 0
    if not source.is_dir():
        raise UserError(f"{source}: no such file or folder")
    inside = output_dir.resolve()
    files = [
        path.relative_to(source)
        for path in sorted(source.rglob("*"))
        if path.is_file() and inside not in path.resolve().parents and not path.name.startswith(".")
    ]
    pictures = [path for path in files if path.suffix.lower() in photo.SUFFIXES]
    if not pictures:
        raise UserError(f"{source}: no pictures in it ({', '.join(sorted(photo.SUFFIXES))})")
    return pictures, len(files) - len(pictures)


@dataclasses.dataclass(frozen=True)
class RestoredPhoto:
    """A photo that was restored.

    Attributes:
      photo: as it was read.
      content: the bytes of the restored file.
      request_seconds: how long the server took.
    """

    photo: photo.Photo
    content: bytes
    request_seconds: float


def restore_photo(restorer: Restorer, source: str | os.PathLike) -> RestoredPhoto:
    """Restores one file.

    Args:
      restorer: the connection.
      source: the file.

    Raises:
      UnreadablePhoto, ValueError: see `photo.read` and `photo.write`.
      Refused, UserError: see `Restorer.restore_bytes`.
    """
    picture = photo.read(source)
    started = time.perf_counter()
    answer = restorer.restore_bytes(picture.request)
    seconds = time.perf_counter() - started
    return RestoredPhoto(picture, photo.write(picture, answer), seconds)


def _restore_file(restorer: Restorer, source: pathlib.Path, target: pathlib.Path) -> float:
    """Restores one file into another; returns how many seconds the server took."""
    restored = restore_photo(restorer, source)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".tmp-{os.getpid()}-{target.name}")
    try:
        temporary.write_bytes(restored.content)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    return restored.request_seconds


def restore_folder(
    restorer: Restorer,
    source: str | os.PathLike,
    output_dir: str | os.PathLike,
    *,
    in_flight: int = 4,
    overwrite: bool = False,
    progress: bool = True,
) -> Summary:
    """Restores a picture, or all pictures in a folder and the folders in it, under the same names.

    Args:
      restorer: the connection.
      source: a file or a folder.
      output_dir: where to write; made if missing, never the input's own folder.
      in_flight: requests under way at once.
      overwrite: restore again what `output_dir` has already.
      progress: show a bar; a picture that fails gets its line either way.

    Returns:
      The summary; a picture that fails does not stop the others.

    Raises:
      UserError: nothing to restore, the folder cannot be written, or the server went away; what is written by
        then is whole, and the next run goes on from there.
    """
    source, output_dir = pathlib.Path(source), pathlib.Path(output_dir)
    input_dir = source.parent if source.is_file() else source
    if input_dir.resolve() == output_dir.resolve():
        raise UserError(f"{output_dir} holds the originals; name another folder for the restored pictures")
    pictures, others = _listing(source, output_dir)
    summary = Summary(others=others)
    todo = [path for path in pictures if overwrite or not (output_dir / path).exists()]
    summary.skipped = len(pictures) - len(todo)
    restorer.warm_up()
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{output_dir}: {error.strerror}; name a folder that can be written") from error

    started = time.perf_counter()
    executor = futures.ThreadPoolExecutor(in_flight)
    bar = tqdm(total=len(todo), unit="image", disable=not progress or None)
    try:
        jobs = {executor.submit(_restore_file, restorer, input_dir / path, output_dir / path): path for path in todo}
        for job in futures.as_completed(jobs):
            bar.update()
            try:
                summary.request_seconds.append(job.result())
                summary.restored += 1
            except (Refused, photo.UnreadablePhoto, OSError, ValueError) as error:
                summary.failures.append((str(jobs[job]), str(error)))
                bar.write(f"failed: {jobs[job]}: {error}", file=sys.stderr)
            except UserError as error:
                raise UserError(
                    f"{error} ({summary.restored} of {len(todo)} are done; run the same command to go on)"
                ) from error
    finally:
        executor.shutdown(cancel_futures=True)
        bar.close()
        summary.seconds = time.perf_counter() - started
    return summary
