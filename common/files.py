"""Writing local files whole: each appears under its name when it is complete, or not at all."""

from __future__ import annotations

import contextlib
import os
import pathlib
import uuid
from collections.abc import Iterator


@contextlib.contextmanager
def whole(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a path beside `path` to write a file to; renames it to `path` when the block ends without an exception.

    The temporary name is hidden, does not depend on the length of `path`'s, and keeps its suffix, by which libraries
    choose a format. What was at `path` is replaced.

    Args:
      path: of a file, in a folder that exists.

    Raises:
      OSError: it cannot be written.
    """
    path = pathlib.Path(path)
    temporary = path.with_name(f".tmp-{uuid.uuid4().hex[:12]}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
    """Writes bytes to a file, whole."""
    with whole(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes text to a file, whole, as UTF-8."""
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
