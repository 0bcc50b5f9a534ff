"""Restores a folder of photos through a server: several in flight, resumable, nothing overwritten unasked.

Pictures that the model left as they were are listed in `untouched.jsonl`, see `untouched_pictures`. Until the end of
the run their lines are kept in a journal, `.untouched.jsonl`: a picture's line is in it before the picture is in the
folder, so that a run that is killed loses none. The next run takes the journal up.
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
    """What happened to a folder.

    Attributes:
      restored: pictures written that the model changed.
      untouched: relative path, with /, and reason of each picture that the model left as it was, sorted; these are
        copies of the input files.
      skipped: pictures that the output folder had already.
      failures: relative path and reason of each picture that could not be restored.
      others: files without a picture's suffix, left alone.
      seconds: wall time.
      request_seconds: the server's answering time for each picture, restored or untouched.
      untouched_file: where the untouched pictures of this run and of earlier ones are listed.
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
    """The pictures to restore, relative to the input folder, and how many other files there are."""
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
    """`untouched.jsonl` of an output folder, and the journal of the run; may be used by several threads."""

    def __init__(self, output_dir: pathlib.Path) -> None:
        """Takes up what an earlier run left.

        Raises:
          UserError: there is a list that is not ours, or it cannot be read or written.
        """
        self._folder = output_dir
        self.path, self._journal = output_dir / untouched_pictures.LIST, output_dir / f".{untouched_pictures.LIST}"
        self._lock = threading.Lock()
        if self._journal.exists():
            self.finish()
        self._known = self._read(self.path)

    def record(self, name: str, reason: str | None) -> None:
        """Notes what became of a picture; call it before the picture is in the folder.

        Args:
          name: relative path, with /.
          reason: why it is untouched; None where it is restored.
        """
        with self._lock:
            if reason == self._known.get(name):
                return
            with open(self._journal, "a", encoding="ascii") as journal:
                journal.write(json.dumps({"filename": name, "reason": reason}) + "\n")
            self._known[name] = reason

    def known(self, name: str) -> str | None:
        """Why a picture that is in the folder is untouched; None where it is restored, or not there."""
        return self._known.get(name)

    def finish(self) -> None:
        """Writes the list: earlier lines, replaced by this run's where there are any, of pictures that are there.

        Raises:
          UserError: it cannot be written.
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
    """A photo that a model has seen.

    Attributes:
      photo: as it was read.
      content: the bytes of the file to write: the restored one, or the photo's own where the model left it as it was.
      untouched: why the model did, see `untouched_pictures`; None for a restored photo.
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
      UnreadablePhoto, ValueError: see `photo.read` and `photo.write`.
      Refused, UserError: see `Restorer.ask`.
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
    """Restores one file into another."""
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
        with contextlib.suppress(UserError):  # the first error is the one to tell; the journal stays for the next run
            listed.finish()
        raise
    finally:
        executor.shutdown(cancel_futures=True)
        bar.close()
        summary.untouched.sort()
        summary.seconds = time.perf_counter() - started
    listed.finish()
    return summary
