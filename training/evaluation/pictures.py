"""Finds the images to evaluate on and reads their center crops."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from common.command_line import UserError
from common.images import is_image_name, listed_suffixes


class UnreadablePicture(Exception):
    """Raised for a file that cannot be decoded; the message gives the reason in one line."""


def find(images: str) -> list[tuple[str, Path]]:
    """Lists images.

    Args:
      images: an image, or a folder of images, searched with its subfolders; hidden files are skipped.

    Returns:
      The name and path of each image, sorted; names are relative to the folder and can be written as UTF-8.

    Raises:
      UserError: the path does not exist, or the folder holds no image.
    """
    source = Path(images)
    if source.is_file():
        return [(_text(source.name), source)]
    if not source.is_dir():
        raise UserError(f"--images={images}: no such file or folder")
    files = [path for path in source.rglob("*") if is_image_name(path) and path.is_file()]
    shown = sorted(path for path in files if not path.name.startswith("."))
    if not shown:
        raise UserError(f"--images={images}: holds no pictures ({listed_suffixes()})")
    return [(_text(path.relative_to(source).as_posix()), path) for path in shown]


def _text(name: str) -> str:
    """Returns a file name in which bytes that are not UTF-8 are replaced, so that it can be written."""
    return os.fsencode(name).decode("utf-8", "replace")


def read_crop(path: Path, side: int) -> np.ndarray:
    """Reads the center of an image, turned upright according to its EXIF data.

    Args:
      path: the file.
      side: maximum side of the crop, in pixels; 0 for the whole image.

    Returns:
      uint8 `[H, W, 3]`.

    Raises:
      UnreadablePicture: the file cannot be decoded.
    """
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            width, height = (min(length, side or length) for length in upright.size)
            left, top = (upright.width - width) // 2, (upright.height - height) // 2
            return np.asarray(upright.crop((left, top, left + width, top + height)).convert("RGB"))
    # Pillow's decoders have no common exception for invalid data.
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise UnreadablePicture(" ".join(str(error).split()) or type(error).__name__) from None
