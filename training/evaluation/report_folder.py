"""A report's folder: it appears whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from common.command_line import UserError

PAGE, SUMMARY, TABLE = "index.html", "summary.json", "pictures.csv"


def check(out: str, overwrite: bool) -> None:
    """Checks that a report may be written, before hours are spent on it.

    Raises:
      UserError: the place is taken, or what is there is not a report and may not be replaced.
    """
    place = Path(out)
    if not os.path.lexists(place):
        return
    if not overwrite:
        raise UserError(f"--out={out}: exists; choose another folder, or replace the report with --overwrite")
    if place.is_symlink() or not place.is_dir() or {path.name for path in place.iterdir()} - {PAGE, SUMMARY, TABLE}:
        raise UserError(f"--out={out}: is not a report, or holds other files too, and is not replaced; choose another")


@contextlib.contextmanager
def new_report(out: str, overwrite: bool) -> Iterator[Path]:
    """Yields a folder to write into; it takes its place when the block ends without an exception.

    Args:
      out: the report's place.
      overwrite: replace a report that is there.

    Raises:
      UserError: see `check`; or the folder cannot be written.
    """
    check(out, overwrite)
    place = Path(out)
    # Beside its place, so that the last step is a rename on one file system.
    parent, name = os.path.split(os.path.abspath(out))
    try:
        os.makedirs(parent, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{name}.tmp-", dir=parent))
    except OSError as error:
        raise UserError(f"--out={out}: cannot be written ({error.strerror})") from None
    try:
        new = temporary / "new"
        new.mkdir()
        yield new
        check(out, overwrite)  # again: evaluation takes long, and someone may have put something there
        old = temporary / "old"
        if place.exists():
            place.rename(old)
        try:
            new.rename(place)
        except OSError:
            if old.exists():
                old.rename(place)
            raise
    except OSError as error:
        raise UserError(f"--out={out}: cannot be written ({error.strerror})") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
