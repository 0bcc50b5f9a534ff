"""Which files are images, by the end of their name; HEIC too, where pillow-heif is installed."""

from __future__ import annotations

import contextlib
import os

with contextlib.suppress(ImportError):  # an extra; without it, `photo.parse` rejects a HEIC with a line that says so
    import pillow_heif

    pillow_heif.register_heif_opener()

SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".heic", ".heif"})


def is_image_name(path: str | os.PathLike) -> bool:
    """Whether a file is taken for an image, by the end of its name."""
    return os.path.splitext(os.fspath(path))[1].lower() in SUFFIXES


def listed_suffixes() -> str:
    """The suffixes as an error message lists them."""
    return ", ".join(sorted(SUFFIXES))
