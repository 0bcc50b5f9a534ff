"""A mark as it is, and hardened: what differs from picture to picture, and what is laid stronger.

That marks are removed from many pictures at once because they are the same in all of them, and what varying their
place, their opacity and their geometry does about it: Dekel, Rubinstein, Liu and Freeman, On the Effectiveness of
Visible Watermarks, CVPR 2017.
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
    """One way to lay a mark.

    Attributes:
      name: what the command line calls it.
      meaning: what it does, in a few words.
      moves: whether each picture has the mark at a random place; else all have it in their middle.
      warp: see `spec.Watermark`, as for the two below.
      opacity: factor on the mark's alpha.
      tint: how far its colour moves to a random one.
      times: how often it is laid over itself.
    """

    name: str
    meaning: str
    moves: bool = False
    warp: Range = _NONE
    opacity: Range = _FULL
    tint: Range = _NONE
    times: int = 1

    def spec(self, canvas: str) -> str:
        """The corruption spec that lays a canvas so, see `training.corruption.spec`."""
        mark = spec_lib.Watermark((canvas,), opacity=self.opacity, warp=self.warp, tint=self.tint)
        return spec_lib.to_string(mark)

    def canvas(self, rgba: np.ndarray) -> np.ndarray:
        """The mark that is laid, uint8 `[h, w, 4]`, for the one that is given."""
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
    """The canvas without its transparent border, uint8 `[h, w, 4]` likewise; it must not be transparent everywhere."""
    rows, columns = (np.flatnonzero(rgba[..., 3].any(axis)) for axis in (1, 0))
    return rgba[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def in_the_middle(rgba: np.ndarray, height: int, width: int) -> np.ndarray:
    """A canvas, uint8 `[h, w, 4]`, in the middle of a transparent one of this size, or the middle of a larger one."""
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
    """Lays a mark over pictures, as one defence says."""

    def __init__(self, defence: Defence, rgba: np.ndarray, folder: Path):
        """Prepares a mark.

        Args:
          defence: how it is laid.
          rgba: the mark, uint8 `[h, w, 4]`, without a transparent border.
          folder: where files may be written, as long as the object lives.
        """
        self._defence, self._folder = defence, folder
        self.canvas = defence.canvas(rgba)
        self._corruptions: dict[tuple[int, int], corruption.Corruption] = {}

    def _corruption(self, height: int, width: int) -> corruption.Corruption:
        """What lays the mark over pictures of a size: a canvas as large as the picture stays where it is."""
        size = (height, width)
        if size not in self._corruptions:
            canvas = self.canvas if self._defence.moves else in_the_middle(self.canvas, height, width)
            path = self._folder / f"{self._defence.name}-{height}x{width}.png"
            Image.fromarray(canvas).save(path)
            # Of a sparse mark, a small picture may show nothing, and such a canvas is refused.
            spec = self._defence.spec(str(path)) if canvas[..., 3].any() else "clean"
            self._corruptions[size] = corruption.build(spec)
        return self._corruptions[size]

    def lay(self, clean: np.ndarray, seed: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Marks a picture.

        Args:
          clean: uint8 `[H, W, 3]`.
          seed: of what is random about the mark.

        Returns:
          The marked copy, likewise, and bool `[H, W]`, where it is covered.
        """
        corrupted, alpha = apply(self._corruption(*clean.shape[:2]), clean, seed)
        return corrupted, alpha > corruption.COVERED


def apply(corrupt: corruption.Corruption, clean: np.ndarray, seed: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Corrupts one picture: uint8 `[H, W, 3]` to the like, and the overlay's opacity, float32 `[H, W]`."""
    corrupted, alpha = corrupt(tf.cast(clean, tf.float32)[None] / 255.0, tf.constant([seed], tf.int32))
    return tf.cast(tf.round(corrupted * 255.0), tf.uint8)[0].numpy(), alpha[0, ..., 0].numpy()
