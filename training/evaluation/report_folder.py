"""A report's folder, which appears complete or not at all."""

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
      UserError: `out` exists and `overwrite` is off, or it is not a report and so must not be replaced.
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
    """Yields a temporary folder to write into, and moves it to `out` if the block ends without an exception.

    Args:
      out: the report's folder.
      overwrite: whether to replace an existing report.

    Raises:
      UserError: the report may not be written (see `check`), or the folder cannot be written.
    """
    check(out, overwrite)
    place = Path(out)
    # The temporary folder lies beside `out`, so that the final step is a rename within one file system.
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
        check(out, overwrite)  # Again: evaluation takes long, and something may have been put there meanwhile.
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
