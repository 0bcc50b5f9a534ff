"""Restores a folder of photos through a server: several requests in flight, resumable, no overwriting by default.

Images that the model left unchanged are listed in `untouched.jsonl`, see `untouched_pictures`. During the run, their
lines go to a journal, `.untouched.jsonl`. An image's line is written before the image itself, so a killed run loses
none; the next run merges the journal into the list.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import statistics
import sys
import threading
import time
from concurrent import futures

from tqdm import tqdm

from common import files, images
from common.command_line import UserError
from serving.restoring import photo, untouched_pictures
from serving.restoring.remote import Refused, Restorer


@dataclasses.dataclass
class FolderSummary(untouched_pictures.Counts):
    """The result of restoring a folder.

    Attributes:
      restored: number of images written that the model changed.
      untouched: relative path, with /, and reason for each image that the model left unchanged, sorted; the output
        files are copies of the input files.
      skipped: number of images that were already in the output folder.
      failures: relative path and reason for each image that could not be restored.
      others: number of files without an image suffix; these are ignored.
      seconds: wall time.
      request_seconds: the server's response time for each image, restored or untouched.
      untouched_file: path of the list of untouched images of this and earlier runs.
    """

    restored: int = 0
    untouched: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    skipped: int = 0
    failures: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    others: int = 0
    seconds: float = 0.0
    request_seconds: list[float] = dataclasses.field(default_factory=list)
    untouched_file: str = untouched_pictures.LIST

    def __str__(self) -> str:
        text = f"restored {self.restored}{self.untouched_text(self.untouched_file)}, failed {len(self.failures)}"
        if self.skipped:
            text += f", skipped {self.skipped} that are there already (--overwrite restores them again)"
        if self.others:
            text += f", left alone {self.others} files that are no pictures"
        if self.request_seconds:
            median = 1000 * statistics.median(self.request_seconds)
            text += f"; {len(self.request_seconds) / self.seconds:.2f} images/s, median {median:.0f} ms per request"
        return text


def _listing(source: pathlib.Path, output_dir: pathlib.Path) -> tuple[list[pathlib.Path], int]:
    """Returns the images to restore, relative to the input folder, and the number of other files."""
    if source.is_file():
        return [pathlib.Path(source.name)], 0
    if not source.is_dir():
        raise UserError(f"{source}: no such file or folder")
    inside = output_dir.resolve()
    files = [
        path.relative_to(source)
        for path in sorted(source.rglob("*"))
        if path.is_file()
        and inside not in path.resolve().parents
        and not path.name.startswith(".")
        and not untouched_pictures.is_list(path.name)
    ]
    pictures = [path for path in files if images.is_image_name(path)]
    if not pictures:
        raise UserError(f"{source}: no pictures in it ({images.listed_suffixes()})")
    return pictures, len(files) - len(pictures)


class _UntouchedList:
    """An output folder's `untouched.jsonl` and the run's journal; thread-safe."""

    def __init__(self, output_dir: pathlib.Path) -> None:
        """Reads the list, and merges the journal that an interrupted run left.

        Raises:
          UserError: the list was not written by this program, or cannot be read or written.
        """
        self._folder = output_dir
        self.path, self._journal = output_dir / untouched_pictures.LIST, output_dir / f".{untouched_pictures.LIST}"
        self._lock = threading.Lock()
        if self._journal.exists():
            self.finish()
        self._known = self._read(self.path)

    def record(self, name: str, reason: str | None) -> None:
        """Records the result for an image; call this before writing the image.

        Args:
          name: relative path, with /.
          reason: why it is untouched; None if it is restored.
        """
        with self._lock:
            if reason == self._known.get(name):
                return
            with open(self._journal, "a", encoding="ascii") as journal:
                journal.write(json.dumps({"filename": name, "reason": reason}) + "\n")
            self._known[name] = reason

    def known(self, name: str) -> str | None:
        """Returns the reason recorded for an image; None if it was restored or is not listed."""
        return self._known.get(name)

    def finish(self) -> None:
        """Writes the list: earlier lines updated by the journal's, without images that are not in the folder.

        Raises:
          UserError: the list cannot be written.
        """
        if not self._journal.exists():
            return
        merged = {**self._read(self.path), **self._read(self._journal)}
        reasons = {name: reason for name, reason in merged.items() if reason and (self._folder / name).is_file()}
        try:
            if reasons:
                files.write_bytes(self.path, untouched_pictures.lines(reasons).encode())
            else:
                self.path.unlink(missing_ok=True)
            self._journal.unlink()
        except OSError as error:
            raise UserError(f"{self.path}: {error.strerror}; mend that and run the same command again") from error

    @staticmethod
    def _read(path: pathlib.Path) -> dict[str, str | None]:
        try:
            return untouched_pictures.parse(path.read_bytes(), str(path))
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}; mend that and run the same command again") from error


@dataclasses.dataclass(frozen=True)
class RestoredPhoto:
    """A photo that a model has processed.

    Attributes:
      photo: the photo as read.
      content: the file to write: the restored file, or the original bytes if the model left the photo unchanged.
      untouched: why the model left it unchanged, see `untouched_pictures`; None for a restored photo.
      request_seconds: how long the server took.
    """

    photo: photo.Photo
    content: bytes
    untouched: str | None
    request_seconds: float


def restore_photo(restorer: Restorer, source: str | os.PathLike) -> RestoredPhoto:
    """Restores one file.

    Args:
      restorer: the connection.
      source: the file.

    Raises:
      UnreadablePhoto: the file cannot be read, is not an image, is damaged, or would lose something.
      ValueError: the server's answer has a different size than the photo.
      Refused: the server could not restore this photo.
      UserError: no server, or the server does not have this model.
    """
    picture = photo.read(source)
    started = time.perf_counter()
    answer = restorer.ask(picture.request)
    seconds = time.perf_counter() - started
    result = untouched_pictures.result(picture, answer)
    return RestoredPhoto(picture, result.content, result.untouched, seconds)


def _restore_file(
    restorer: Restorer, source: pathlib.Path, target: pathlib.Path, name: str, listed: _UntouchedList
) -> RestoredPhoto:
    """Restores `source` and writes the result to `target`."""
    restored = restore_photo(restorer, source)
    target.parent.mkdir(parents=True, exist_ok=True)
    before = listed.known(name)
    listed.record(name, restored.untouched)
    try:
        files.write_bytes(target, restored.content)
    except BaseException:
        listed.record(name, before)
        raise
    return restored


def restore_folder(
    restorer: Restorer,
    source: str | os.PathLike,
    output_dir: str | os.PathLike,
    *,
    in_flight: int = 4,
    overwrite: bool = False,
    progress: bool = True,
) -> FolderSummary:
    """Restores an image, or all images in a folder and its subfolders, under the same names.

    Args:
      restorer: the connection.
      source: a file or a folder.
      output_dir: where to write; created if missing; must not be the input's own folder.
      in_flight: number of concurrent requests.
      overwrite: restore images again that are already in `output_dir`.
      progress: show a progress bar; failures are printed either way.

    Returns:
      The summary; a failed image does not stop the others.

    Raises:
      UserError: nothing to restore, the folder cannot be written, or the server went away. Files written by then are
        complete, and the next run resumes from there.
    """
    source, output_dir = pathlib.Path(source), pathlib.Path(output_dir)
    input_dir = source.parent if source.is_file() else source
    if input_dir.resolve() == output_dir.resolve():
        raise UserError(f"{output_dir} holds the originals; name another folder for the restored pictures")
    pictures, others = _listing(source, output_dir)
    summary = FolderSummary(others=others)
    todo = [path for path in pictures if overwrite or not (output_dir / path).exists()]
    summary.skipped = len(pictures) - len(todo)
    restorer.warm_up()
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{output_dir}: {error.strerror}; name a folder that can be written") from error
    listed = _UntouchedList(output_dir)
    summary.untouched_file = str(listed.path)

    started = time.perf_counter()
    executor = futures.ThreadPoolExecutor(in_flight)
    bar = tqdm(total=len(todo), unit="image", disable=not progress or None)
    try:
        jobs = {
            executor.submit(_restore_file, restorer, input_dir / path, output_dir / path, path.as_posix(), listed): path
            for path in todo
        }
        for job in futures.as_completed(jobs):
            bar.update()
            try:
                restored = job.result()
                summary.request_seconds.append(restored.request_seconds)
                if restored.untouched:
                    summary.untouched.append((jobs[job].as_posix(), restored.untouched))
                else:
                    summary.restored += 1
            except (Refused, photo.UnreadablePhoto, OSError, ValueError) as error:
                summary.failures.append((str(jobs[job]), str(error)))
                bar.write(f"failed: {jobs[job]}: {error}", file=sys.stderr)
            except UserError as error:
                done = summary.restored + len(summary.untouched)
                raise UserError(f"{error} ({done} of {len(todo)} are done; run the same command to go on)") from error
    except BaseException:
        executor.shutdown(cancel_futures=True)
        with contextlib.suppress(UserError):  # report the first error; the journal stays for the next run
            listed.finish()
        raise
    finally:
        executor.shutdown(cancel_futures=True)
        bar.close()
        summary.untouched.sort()
        summary.seconds = time.perf_counter() - started
    listed.finish()
    return summary
