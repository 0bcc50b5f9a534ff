"""Reads watermarked flat images and finds their original gray levels.

In: images of one size (PNG, JPEG, …), each a single gray or color before a site or a camera put its mark on it.
Out: their pixels, and their levels, i.e. the original color of each image.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from PIL import Image

from common.command_line import UserError

# JFIF's matrix from RGB to YCbCr, without the offset of 128, so that it stays linear for mixtures.
YCBCR = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
TO_RGB = np.linalg.inv(YCBCR)
# Levels by which a flat may vary, because of JPEG or a camera.
_TOLERANCE = 4
# Levels between flats. Opacity is computed from this difference; at 32, one level of rounding error becomes 8 levels of
# opacity.
_LEAST_DIFFERENCE = 32
_LOSSY = ("JPEG", "MPO", "WEBP", "AVIF")


@dataclasses.dataclass(frozen=True)
class Flats:
    """Flats with the same mark.

    Attributes:
      pictures: float32 `[N, H, W, 3]`, sRGB, 0..255; JPEGs may exceed this range with colors outside sRGB.
      levels: float64 `[N, 3]`, color of each flat before it was marked, 0..255.
      lossy: whether a lossy codec may have changed them further.
    """

    pictures: np.ndarray
    levels: np.ndarray
    lossy: bool = False


def read(paths: Sequence[str], levels: Sequence[float] | None = None) -> Flats:
    """Reads flats.

    Args:
      paths: one or more image files.
      levels: gray level of each flat before it was marked, 0..255; None uses the most common color.

    Returns:
      The flats.

    Raises:
      UserError: the images are unreadable, differ in size, are not flat, or have levels that are too similar.
    """
    if not paths:
        raise UserError("no flat pictures; name them: --flats=dark.png,bright.png")
    if levels is not None and len(levels) != len(paths):
        raise UserError(f"{len(paths)} flats and {len(levels)} levels; give one level for each flat, or none at all")
    if levels is not None and not all(0 <= level <= 255 for level in levels):
        raise UserError(f"levels {','.join(f'{level:g}' for level in levels)}: each must be within 0..255")
    pictures, formats = zip(*map(_read_one, paths))
    for path, picture in zip(paths[1:], pictures[1:]):
        if picture.shape != pictures[0].shape:
            raise UserError(
                f"{path} is {_size(picture)} and {paths[0]} is {_size(pictures[0])}: a mark's place depends on the "
                "picture's size; take all flats of one size"
            )
    if levels is None:
        grounds = np.array([_commonest(path, picture) for path, picture in zip(paths, pictures)])
    else:
        grounds = np.repeat(np.asarray(levels, np.float64)[:, None], 3, 1)
    if len(paths) > 1 and np.ptp(grounds, 0).min() < _LEAST_DIFFERENCE:
        raise UserError(
            f"the flats' levels are {', '.join(map(level_name, grounds))}, too much alike to tell the mark's opacity; "
            f"take greys at least {_LEAST_DIFFERENCE} apart (0 and 255 are best), or a single flat"
        )
    return Flats(np.stack(pictures), grounds, any(name in _LOSSY for name in formats))


def level_name(ground: np.ndarray) -> str:
    """Formats a level: `128`, or `(130, 128, 120)` if it is not gray."""
    return f"{ground[0]:g}" if np.ptp(ground) == 0 else f"({', '.join(f'{channel:g}' for channel in ground)})"


def _read_one(path: str) -> tuple[np.ndarray, str | None]:
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise UserError(f"flat {path}: more than 8 bits a pixel ({image.mode}); save it as RGB of 8 bits")
            if "A" in image.getbands() or "transparency" in image.info:
                if image.convert("RGBA").getchannel("A").getextrema()[0] < 255:
                    raise UserError(f"flat {path}: is transparent itself; lay it on its grey and save it without alpha")
            return _rgb(image), image.format
    except FileNotFoundError:
        raise UserError(f"flat {path}: no such file") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"flat {path}: cannot be read as a picture ({error})") from None


def _rgb(image: Image.Image) -> np.ndarray:
    if image.format == "JPEG" and image.mode == "RGB" and image.info.get("adobe_transform") != 0:
        # Chroma, at half the resolution, bleeds over a mark's edge. On black and on white, conversion to RGB would clip
        # that and so distort luma, which is sharp.
        image.draft("YCbCr", None)
        return ((np.asarray(image) - np.float32([0, 128, 128])) @ TO_RGB.T).astype(np.float32)
    return np.asarray(image.convert("RGB"), np.float32)


def _commonest(path: str, picture: np.ndarray) -> np.ndarray:
    bins = np.clip(np.rint(picture), 0, 255).astype(np.uint8).reshape(-1, 3)
    ground = np.array([np.bincount(channel, minlength=256).argmax() for channel in bins.T])
    near = np.abs(picture - ground).max(-1) <= _TOLERANCE
    share = near.mean()
    if share < 0.5:
        raise UserError(
            f"flat {path}: is not flat: its commonest colour, {level_name(ground)}, fills {100 * share:.0f} % of it; "
            "mark a picture of one grey, or give --levels if the mark covers most of it"
        )
    return np.median(picture[near], 0).astype(np.float64)


def _size(picture: np.ndarray) -> str:
    return f"{picture.shape[1]}x{picture.shape[0]}"
