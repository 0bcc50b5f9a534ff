"""Many canvases of any size as one tensor that a graph samples from."""

from __future__ import annotations

import glob
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from common import canvas_file
from common.command_line import UserError


def expand(patterns: Sequence[str]) -> list[str]:
    """Returns the files that paths and patterns name, sorted, without duplicates.

    Raises:
      UserError: no file matches a pattern. A plain path is returned even if the file does not exist.
    """
    paths: set[str] = set()
    for pattern in patterns:
        if glob.has_magic(pattern):
            found = glob.glob(pattern, recursive=True)
            if not found:
                raise UserError(f"canvas {pattern}: no file matches; give the path of an RGBA PNG")
            paths.update(found)
        else:
            paths.add(pattern)
    return sorted(paths)


def _halved(canvas: np.ndarray) -> np.ndarray:
    """Halves the size by averaging 2 x 2 pixels; pads an odd last row or column with transparent ones."""
    even = np.pad(canvas, [(0, canvas.shape[0] % 2), (0, canvas.shape[1] % 2), (0, 0)])
    return (even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) / 4.0


class CanvasBank:
    """Canvases with premultiplied alpha, each at full size and repeatedly halved.

    They are premultiplied because interpolating straight color pulls the transparent background's color (usually black)
    into the watermark's edges. The halved sizes are for watermarks shrunk to less than half, where interpolating
    between four pixels would skip most of the watermark (mipmaps; Williams, SIGGRAPH 1983).
    """

    def __init__(self, canvases: Sequence[np.ndarray], smallest_scale: float = 1.0):
        """Packs the canvases.

        Args:
          canvases: uint8 `[H, W, 4]` each, any sizes, alpha not premultiplied.
          smallest_scale: the smallest scale at which a canvas will be sampled.
        """
        self.levels = 1 + max(0, int(np.floor(np.log2(1.0 / smallest_scale))))
        pixels = [np.zeros([1, 4], np.uint8)]  # index 0: the transparent pixel beyond every edge
        self._first, self._height, self._width, end = [], [], [], 1
        for canvas in canvases:
            level = canvas.astype(np.float32)
            level[..., :3] *= level[..., 3:] / 255.0
            for _ in range(self.levels):
                pixels.append(np.round(level).astype(np.uint8).reshape(-1, 4))
                self._first.append(end)
                self._height.append(level.shape[0])
                self._width.append(level.shape[1])
                end += len(pixels[-1])
                level = _halved(level)
        # A pixel's four bytes as one int32: a quarter of the elements to gather.
        self._pixels = np.concatenate(pixels).view(np.int32).ravel()
        self.count = len(canvases)

    def size(self, canvas: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the height and width in pixels, float32, of the canvases with these indices."""
        row = canvas * self.levels
        sizes = (tf.gather(tf.constant(side, tf.float32), row) for side in (self._height, self._width))
        return tuple(sizes)

    def _gather(self, row: tf.Tensor, y: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        first, height, width = (
            tf.gather(tf.constant(column, tf.int32), row)[:, None, None]
            for column in (self._first, self._height, self._width)
        )
        # Each coordinate by itself: if y is `[N, H, 1]` and x `[N, 1, W]`, only what follows is computed per pixel.
        inside_y, inside_x, begin = (y >= 0) & (y < height), (x >= 0) & (x < width), first + y * width
        place = tf.where(inside_y & inside_x, begin + x, 0)
        return tf.cast(tf.bitcast(tf.gather(tf.constant(self._pixels), place), tf.uint8), tf.float32)

    def pixels(self, canvas: tf.Tensor, y: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """Reads whole pixels.

        Args:
          canvas: int32 `[N]`, index of each image's canvas.
          y: int32 `[N, H, W]`, or `[N, H, 1]` if constant along each row; outside the canvas all is transparent.
          x: int32 `[N, H, W]`, or `[N, 1, W]` if constant along each column.

        Returns:
          float32 `[N, H, W, 4]` in 0..255, premultiplied.
        """
        return self._gather(canvas * self.levels, y, x)

    def interpolated(self, canvas: tf.Tensor, y: tf.Tensor, x: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
        """Reads between pixels, bilinearly.

        Args:
          canvas: int32 `[N]`, index of each image's canvas.
          y: float32 `[N, H, W]` or `[N, H, 1]`; the first pixel's center is at 0.5.
          x: float32 `[N, H, W]` or `[N, 1, W]`; the first pixel's center is at 0.5.
          scale: float32 `[N]`, the scale at which the canvas is seen, which chooses between full and halved sizes.

        Returns:
          float32 `[N, H, W, 4]` in 0..255, premultiplied.
        """
        level = tf.cast(tf.floor(tf.math.log(1.0 / scale) / np.log(2.0) + 1e-4), tf.int32)
        level = tf.clip_by_value(level, 0, self.levels - 1)
        shrink = tf.pow(0.5, tf.cast(level, tf.float32))[:, None, None]
        y, x = y * shrink - 0.5, x * shrink - 0.5
        top, left = tf.floor(y), tf.floor(x)
        down, right = (y - top)[..., None], (x - left)[..., None]
        top, left, row = tf.cast(top, tf.int32), tf.cast(left, tf.int32), canvas * self.levels + level
        upper = self._gather(row, top, left) * (1.0 - right) + self._gather(row, top, left + 1) * right
        lower = self._gather(row, top + 1, left) * (1.0 - right) + self._gather(row, top + 1, left + 1) * right
        return upper * (1.0 - down) + lower * down


def read_bank(patterns: Sequence[str], smallest_scale: float = 1.0) -> CanvasBank:
    """Reads the canvases that paths and patterns name.

    Raises:
      UserError: a pattern or file cannot be used; the message names it.
    """
    return CanvasBank([np.asarray(canvas_file.read(path)) for path in expand(patterns)], smallest_scale)
