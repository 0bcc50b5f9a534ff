"""Version folders in TF Serving's layout: `BASE_PATH/<number>/saved_model.pb`; the largest number is the newest.

A version becomes visible in one step: it is written to a sibling folder whose name is not a number, which servers
ignore, and renamed once it is complete.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

from common.command_line import UserError

_TEMPORARY_PREFIX = ".tmp-"


def list_versions(base_path: str | os.PathLike) -> dict[int, pathlib.Path]:
    """Maps the version numbers under `base_path`, ascending, to their folders; empty if there are none."""
    folders = pathlib.Path(base_path).glob("*/saved_model.pb")
    found = {int(file.parent.name): file.parent for file in folders if file.parent.name.isdecimal()}
    return dict(sorted(found.items()))


def newest_version(base_path: str | os.PathLike) -> pathlib.Path | None:
    """The folder of the largest version number under `base_path`, or None if there is no version."""
    found = list_versions(base_path)
    return found[max(found)] if found else None


def _number(base_path: pathlib.Path, version: int | None) -> int:
    """Returns the number to write: `version` if it is free; if None, one more than any existing, complete or not."""
    taken = [int(name) for name in os.listdir(base_path) if name.isdecimal()]
    if version is None:
        return max(taken, default=0) + 1
    if version < 1:
        raise UserError(f"version {version}: versions are numbered from 1")
    if version in taken:
        raise UserError(
            f"{base_path / str(version)} exists and versions are never replaced, because servers may be using "
            "them; leave the version out for the next number, or remove that folder"
        )
    return version


@contextlib.contextmanager
def new_version(base_path: str | os.PathLike, version: int | None = None) -> Iterator[NewVersion]:
    """Yields a folder to write a version into; it is published if the block ends without an exception.

    Args:
      base_path: the model's folder; created if missing.
      version: the version number; defaults to one more than the largest existing.

    Raises:
      UserError: the version exists, or the folder cannot be written.
    """
    base_path = pathlib.Path(base_path)
    try:
        base_path.mkdir(parents=True, exist_ok=True)
        temporary = pathlib.Path(tempfile.mkdtemp(prefix=_TEMPORARY_PREFIX, dir=base_path))
    except OSError as error:
        raise UserError(f"{base_path}: {error.strerror}; name a folder that can be written") from error
    try:
        new = NewVersion(temporary, base_path / str(_number(base_path, version)))
        yield new
        temporary.chmod(0o755)  # mkdtemp creates it private, but TF Serving may run as another user
        _publish(new, base_path, version)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class NewVersion:
    """A version being written.

    Attributes:
      folder: where to write it.
      path: its final path; may change until the block of `new_version` has ended.
    """

    def __init__(self, folder: pathlib.Path, path: pathlib.Path) -> None:
        self.folder, self.path = folder, path


def _publish(new: NewVersion, base_path: pathlib.Path, version: int | None) -> None:
    while True:
        try:
            os.rename(new.folder, new.path)
            return
        except OSError:
            if not new.path.exists():
                raise
        # Another export has taken the number: raise for an explicit version, else take the next one.
        new.path = base_path / str(_number(base_path, version))
