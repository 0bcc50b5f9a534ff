"""Watermarks images and measures results with NumPy and Pillow alone, sharing no code with what is measured."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, Union

import numpy as np
from PIL import Image

_COVERED = 0.02  # opacity above which a pixel counts as covered
_LEAST_SHOWN = 0.02  # lower limit of the transmission that `oracle` divides by


class Laid(NamedTuple):
    """A watermarked image.

    Attributes:
      clean: uint8 `[h, w, 3]`.
      picture: the watermarked image, uint8 `[h, w, 3]`.
      layer: the watermark as laid, `[h, w, 4]` in 0..255: premultiplied color and alpha, both times the opacity.
    """

    clean: np.ndarray
    picture: np.ndarray
    layer: np.ndarray

    @property
    def covered(self) -> np.ndarray:
        """The pixels that the watermark covers, bool `[h, w]`."""
        return self.layer[..., 3] / 255 > _COVERED


def _blended(clean: np.ndarray, layer: np.ndarray) -> Laid:
    picture = np.round(clean * (1 - layer[..., 3:] / 255) + layer[..., :3])
    return Laid(clean, np.clip(picture, 0, 255).astype(np.uint8), layer)


def _opacity(rng: np.random.Generator) -> float:
    return rng.uniform(0.88, 0.97)


def _premultiplied(canvas: Image.Image, opacity: float) -> np.ndarray:
    rgba = np.asarray(canvas).astype(np.float64)
    return np.concatenate([rgba[..., :3] * rgba[..., 3:] / 255, rgba[..., 3:]], -1) * opacity


def lay_at(clean: np.ndarray, canvas: Image.Image, corner: tuple[int, int], opacity: float) -> Laid:
    """Lays a canvas over an image with its top left corner at pixel (y, x), which may lie outside the image."""
    layer = np.zeros((*clean.shape[:2], 4))
    first = np.maximum(corner, 0)
    last = np.minimum(np.add(corner, canvas.size[::-1]), clean.shape[:2])
    part = tuple(slice(*ends) for ends in zip(first, last))
    of_canvas = tuple(slice(*ends) for ends in zip(first - corner, last - corner))
    layer[part] = _premultiplied(canvas, opacity)[of_canvas]
    return _blended(clean, layer)


def lay(clean: np.ndarray, canvas: Image.Image, rng: np.random.Generator) -> tuple[Laid, tuple[int, int]]:
    """Lays a canvas at a random whole-pixel offset and an opacity of 0.88 to 0.97.

    A canvas larger than the image covers all of it; a smaller one lies inside.

    Returns:
      The watermarked image, and the (y, x) of the canvas's top left corner.
    """
    opacity, corner = _opacity(rng), []
    for side, length in zip(clean.shape[:2], canvas.size[::-1]):
        cut_off = int(rng.integers(0, max(length - side, 0) + 1))
        corner.append(int(rng.integers(0, max(side - length, 0) + 1)) - cut_off)
    return lay_at(clean, canvas, tuple(corner), opacity), tuple(corner)


def lay_scaled(clean: np.ndarray, canvas: Image.Image, rng: np.random.Generator) -> tuple[Laid, np.ndarray]:
    """Lays a canvas scaled and rotated by Pillow; also returns (dy, dx, scale, rotation) as keyed exports report it."""
    height, width = clean.shape[:2]
    scale, angle = np.exp(rng.uniform(np.log(0.5), np.log(2))), np.radians(rng.uniform(-3, 3))
    # Limit the scale of a stamp, so that it fits into the crop.
    if canvas.height < height:
        scale = min(scale, 0.95 * width / canvas.width)
    middle = np.array([canvas.height, canvas.width]) / 2
    spare = np.abs(np.array([height, width]) - scale * 2 * middle) / 2 - 0.1 * scale * middle
    at = np.array([height, width]) / 2 + rng.uniform(-1, 1, 2) * np.maximum(spare, 0)
    sine, cosine = np.sin(angle), np.cos(angle)
    turn = np.array([[cosine, -sine], [sine, cosine]])  # rotates (y, x), counterclockwise on a screen
    corner = at - scale * turn @ middle
    smaller = canvas.resize([max(1, round(side * min(scale, 1.0))) for side in canvas.size], Image.Resampling.LANCZOS)
    back = turn.T / scale * (smaller.width / canvas.width)  # from image to resized canvas
    origin = -back @ corner
    matrix = (back[1, 1], back[1, 0], origin[1], back[0, 1], back[0, 0], origin[0])
    placed = smaller.transform((width, height), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    return _blended(clean, _premultiplied(placed, _opacity(rng))), np.array([*corner, scale, angle])


def as_jpeg(laid: Laid) -> Laid:
    """Replaces the image by its version after JPEG compression at quality 90, 4:4:4."""
    file = io.BytesIO()
    Image.fromarray(laid.picture).save(file, "JPEG", quality=90, subsampling=0)
    return laid._replace(picture=np.asarray(Image.open(file)))


def psnr(picture: np.ndarray, laid: Laid) -> float:
    """Returns the PSNR over covered pixels, in dB."""
    error = np.square(picture.astype(np.float64) - laid.clean)[laid.covered].mean()
    return 10 * np.log10(255**2 / max(error, 1e-9))


def oracle(laid: Laid) -> np.ndarray:
    """Restores the image by inverting the blend with the true layer, float64 `[h, w, 3]`."""
    shows = np.maximum(1 - laid.layer[..., 3:] / 255, _LEAST_SHOWN)
    return np.clip(np.round((laid.picture - laid.layer[..., :3]) / shows), 0, 255)


def centre_crops(paths: Iterable[Union[str, Path]], side: int, limit: int) -> list[np.ndarray]:
    """Returns the center crops, uint8 `[side, side, 3]` each, of the first `limit` images that are large enough."""
    crops = []
    for path in paths:
        picture = np.asarray(Image.open(path).convert("RGB"))
        top, left = ((length - side) // 2 for length in picture.shape[:2])
        if min(top, left) >= 0:
            crops.append(picture[top : top + side, left : left + side])
        if len(crops) == limit:
            break
    return crops
