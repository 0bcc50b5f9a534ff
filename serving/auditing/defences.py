"""The plain mark and its hardened variants, which vary it from image to image or apply it more strongly.

Marks can be removed from a whole collection because they are the same in every image. For how varying their position,
opacity and geometry counters this, see Dekel, Rubinstein, Liu and Freeman, On the Effectiveness of Visible Watermarks,
CVPR 2017.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from training import corruption
from training.corruption import spec as spec_lib
from training.corruption.spec import Range

_NONE, _FULL = Range(0.0, 0.0), Range(1.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Defence:
    """One way to apply a mark.

    Attributes:
      name: its name on the command line.
      meaning: a short description.
      moves: whether the mark is at a random position in each image, instead of the center.
      warp: largest shift by a smooth random displacement, pixels.
      opacity: factor on the mark's alpha.
      tint: how far the mark's color moves toward a random color, 0 to 1.
      times: how many times the mark is applied over itself.
    """

    name: str
    meaning: str
    moves: bool = False
    warp: Range = _NONE
    opacity: Range = _FULL
    tint: Range = _NONE
    times: int = 1

    def spec(self, canvas: str) -> str:
        """Returns the corruption spec that applies a canvas this way, see `training.corruption.spec`."""
        mark = spec_lib.Watermark((canvas,), opacity=self.opacity, warp=self.warp, tint=self.tint)
        return spec_lib.to_string(mark)

    def canvas(self, rgba: np.ndarray) -> np.ndarray:
        """Returns the mark to apply, with `times` taken into account, uint8 `[h, w, 4]`, given the original mark."""
        opaque = 1.0 - (1.0 - rgba[..., 3:] / 255.0) ** self.times
        return np.concatenate([rgba[..., :3], np.rint(255.0 * opaque).astype(np.uint8)], axis=-1)


_WARP, _OPACITY, _TINT = Range(1.0, 1.0), Range(0.7, 1.0), Range(0.0, 0.2)
PLAIN = Defence("plain", "the mark as it is, in the middle of every picture")
HARDENED = (
    Defence("moved", "at a random place of each picture", moves=True),
    Defence("warp", "bent by a smooth random displacement, at most one pixel", warp=_WARP),
    Defence("opacity", "0.7 to 1 of its opacity, drawn for each picture", opacity=_OPACITY),
    Defence("colour", "colour moved by up to a fifth to a random one", tint=_TINT),
    Defence("combined", "moved, warp, opacity and colour together", True, _WARP, _OPACITY, _TINT),
    Defence("twice", "laid twice over itself: more opaque", times=2),
)


def trimmed(rgba: np.ndarray) -> np.ndarray:
    """Crops a canvas, uint8 `[h, w, 4]`, to its nontransparent pixels; there must be some."""
    rows, columns = (np.flatnonzero(rgba[..., 3].any(axis)) for axis in (1, 0))
    return rgba[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def in_the_middle(rgba: np.ndarray, height: int, width: int) -> np.ndarray:
    """Centers a canvas, uint8 `[h, w, 4]`, on a transparent one of this size; crops it if it is larger."""
    placed = np.zeros((height, width, 4), np.uint8)
    inside, seen = [], []
    for size, length in zip((height, width), rgba.shape[:2]):
        corner = (size - length) // 2
        first, last = max(corner, 0), min(corner + length, size)
        inside.append(slice(first, last))
        seen.append(slice(first - corner, last - corner))
    placed[tuple(inside)] = rgba[tuple(seen)]
    return placed


class Marker:
    """Applies a mark to images with one defense."""

    def __init__(self, defence: Defence, rgba: np.ndarray, folder: Path):
        """Prepares a mark.

        Args:
          defence: how to apply it.
          rgba: the mark, uint8 `[h, w, 4]`, without a transparent border.
          folder: folder for temporary files; must exist as long as this object is used.
        """
        self._defence, self._folder = defence, folder
        self.canvas = defence.canvas(rgba)
        self._corruptions: dict[tuple[int, int], corruption.Corruption] = {}

    def _corruption(self, height: int, width: int) -> corruption.Corruption:
        """Builds the corruption for images of one size; a canvas of the image's size is not moved."""
        size = (height, width)
        if size not in self._corruptions:
            canvas = self.canvas if self._defence.moves else in_the_middle(self.canvas, height, width)
            path = self._folder / f"{self._defence.name}-{height}x{width}.png"
            Image.fromarray(canvas).save(path)
            # A small image may show nothing of a sparse mark, and an empty canvas would be rejected.
            spec = self._defence.spec(str(path)) if canvas[..., 3].any() else "clean"
            self._corruptions[size] = corruption.build(spec)
        return self._corruptions[size]

    def lay(self, clean: np.ndarray, seed: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Marks an image.

        Args:
          clean: uint8 `[H, W, 3]`.
          seed: seed for everything random about the mark.

        Returns:
          The marked copy, uint8 `[H, W, 3]`, and its covered pixels, bool `[H, W]`.
        """
        corrupted, alpha = apply(self._corruption(*clean.shape[:2]), clean, seed)
        return corrupted, alpha > corruption.COVERED


def apply(corrupt: corruption.Corruption, clean: np.ndarray, seed: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Corrupts one image, uint8 `[H, W, 3]`; returns the result and the overlay's opacity, float32 `[H, W]`."""
    corrupted, alpha = corrupt(tf.cast(clean, tf.float32)[None] / 255.0, tf.constant([seed], tf.int32))
    return tf.cast(tf.round(corrupted * 255.0), tf.uint8)[0].numpy(), alpha[0, ..., 0].numpy()
