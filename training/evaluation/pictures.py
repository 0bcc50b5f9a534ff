"""The pictures to evaluate on: found in a folder, cropped about their centre."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from common.command_line import UserError
from common.images import is_image_name, listed_suffixes


class UnreadablePicture(Exception):
    """A file that does not decode; the message says why, in one line."""


def find(images: str) -> list[tuple[str, Path]]:
    """Lists pictures.

    Args:
      images: a picture, or a folder of them with the folders in it; hidden files are left alone.

    Returns:
      Name and path of each, sorted; the name is relative to the folder and can be written as UTF-8.

    Raises:
      UserError: nothing is there, or no picture.
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
    """The name as it can be written: bytes that are not UTF-8 are replaced."""
    return os.fsencode(name).decode("utf-8", "replace")


def read_crop(path: Path, side: int) -> np.ndarray:
    """The centre of a picture, turned upright as its EXIF says.

    Args:
      path: the file.
      side: of the crop in pixels, at most; 0 for the whole picture.

    Returns:
      uint8 `[H, W, 3]`.

    Raises:
      UnreadablePicture: the file does not decode.
    """
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            width, height = (min(length, side or length) for length in upright.size)
            left, top = (upright.width - width) // 2, (upright.height - height) // 2
            return np.asarray(upright.crop((left, top, left + width, top + height)).convert("RGB"))
    # Pillow's decoders have no common exception for data that they cannot make sense of.
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise UnreadablePicture(" ".join(str(error).split()) or type(error).__name__) from None
