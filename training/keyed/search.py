"""Locates a canvas of unknown scale and angle, by trying every combination of the two on a small image.

The image is scaled and rotated instead of the canvas, so that the canvas's fields are computed once. At an eighth of
the canvas's resolution, a watermark's score falls by half when the scale is off by about 2 percent or the angle by 2
degrees, over 160 canvas pixels to each side; at a quarter, when they are off by half as much. So a coarse search of the
whole range is followed by a finer one around its best results. If the canvas fills the image, only a window of the
image is searched.
"""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from training.keyed import locate
from training.keyed.canvas_features import CanvasFeatures
from training.keyed.placement import Placement, bilinear, pixel_middles, turned

COARSE, FINE = 8, 4  # factors by which the canvas is shrunk
_WINDOW = 320.0  # canvas pixels per side
_MOST_POINTS = 1_000_000  # points that are searched at once, because of memory
_SCALE_STEP, _ANGLE_STEP = 1.06, math.radians(3.0)  # steps of the coarse search; the fine search's are half as large


def scales_to_try(low: float, high: float) -> np.ndarray:
    """Returns scales between two, close enough that a watermark is seen at one of them: float32 `[S]`."""
    low, high = np.log((low, high))
    count = 1 + math.ceil((high - low) / math.log(_SCALE_STEP))
    return np.exp(np.linspace(low, high, count)).astype(np.float32)


def angles_to_try(first: float, last: float) -> np.ndarray:
    """Returns angles between two, given in degrees, counterclockwise: float32 `[A]`, radians."""
    first, last = np.radians((first, last))
    return np.linspace(first, last, 1 + math.ceil((last - first) / _ANGLE_STEP)).astype(np.float32)


def around(scale: tf.Tensor, rotation: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns what the fine search tries around a coarse result: scales `[3]` and angles `[3]`."""
    steps = tf.constant([-0.5, 0.0, 0.5])
    return scale * _SCALE_STEP**steps, rotation + _ANGLE_STEP * steps


def _seen_turned(small: tf.Tensor, angles: tf.Tensor) -> tf.Tensor:
    """Samples an image `[h, w, C]` in frames rotated about its top left corner, `[A, h, w, C]`; bilinear, clamped."""
    return bilinear(small, turned(pixel_middles(tf.shape(small)[:2]), angles[:, None, None]) - 0.5)


def search(
    picture: tf.Tensor,
    canvas: CanvasFeatures,
    level: tf.Tensor | float,
    canvas_size: tuple[int, int],
    scales: tf.Tensor,
    angles: tf.Tensor,
    best: tf.Tensor | int,
    counts: tf.Tensor | None = None,
    shrunk_by: tf.Tensor | float = 1.0,
    is_inside: tf.Tensor | bool = False,
) -> tuple[tf.Tensor, Placement]:
    """Scores every combination of scale and angle.

    Args:
      picture: float32 `[H, W, 3]` in 0..1.
      canvas: the canvas's fields at `1 / level` of its resolution.
      level: `COARSE` or `FINE`.
      canvas_size: height and width of the canvas.
      scales: float32 `[S]`, at least 0.25.
      angles: float32 `[A]`, radians.
      best: number of results.
      counts: float32 `[h, w]`, over the image at a lower resolution: 0 for what to leave out, else 1. None if all
        counts, as with ones everywhere.
      shrunk_by: factor along each side by which the image was shrunk; at most `level` times the smallest scale.
      is_inside: bool, or `[2]` for one per axis: whether a canvas smaller than the image lies almost fully inside it.

    Returns:
      Scores `[best]`, highest first, and placements with a leading dimension of `best`, right to within a few pixels.
    """
    scales, level = scales / shrunk_by, tf.cast(level, tf.float32)
    picture_size = tf.shape(picture)[:2]
    size = tf.cast(picture_size, tf.float32)
    counts = tf.ones(picture_size) if counts is None else counts
    all_count = tf.reduce_all(counts > 0.0)

    def at_scale(scale: tf.Tensor, angles: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        extent_there = scale * tf.constant(canvas_size, tf.float32)
        # If the canvas fills the image, a window shows enough of it.
        fills = tf.reduce_all(extent_there > 0.5 * size) & all_count
        side = tf.where(fills, tf.minimum(size, scale * _WINDOW), size)
        start, extent = tf.cast((size - side) / 2.0, tf.int32), tf.maximum(1, tf.cast(side, tf.int32))
        seen = tf.slice(picture, tf.concat([start, [0]], 0), tf.concat([extent, [3]], 0))
        shrunk_size = tf.maximum(8, tf.cast(tf.round(side / (level * scale)), tf.int32))
        small = tf.image.resize(seen, shrunk_size, antialias=True)
        counted = tf.raw_ops.ResizeBilinear(images=counts[None, ..., None], size=shrunk_size, half_pixel_centers=True)
        counted = tf.where(all_count, 1.0, _seen_turned(counted[0], angles)[..., 0])
        nested = tf.reduce_all((extent_there > size) | is_inside) & all_count
        fields = locate.picture_fields(_seen_turned(small, angles), level, counted)
        scores = locate.score_map(fields, canvas, locate.spectra(canvas, shrunk_size, nested))
        score, corner = locate.best_offset(scores, shrunk_size, canvas, nested)
        # From pixels of the rotated frames to the image's. The resized image is a whole number of pixels, so the factor
        # is not quite level * scale.
        pixels = turned(tf.cast(corner, tf.float32), angles) * tf.cast(extent / shrunk_size, tf.float32)
        return score, tf.cast(start, tf.float32) + pixels

    # All angles at once save time; one after the other they save memory.
    most_points = tf.reduce_prod(size / (level * tf.reduce_min(scales))) * tf.cast(tf.size(angles), tf.float32)
    turns = tf.where(most_points > _MOST_POINTS, tf.size(angles), 1)
    tried = tf.repeat(scales, turns), tf.tile(tf.reshape(angles, [turns, -1]), [tf.size(scales), 1])
    signature = (tf.TensorSpec([None], tf.float32), tf.TensorSpec([None, 2], tf.float32))
    scores, corners = tf.map_fn(lambda row: at_scale(*row), tried, fn_output_signature=signature, parallel_iterations=2)
    highest, index = tf.math.top_k(tf.reshape(scores, [-1]), best)
    corners, count = tf.gather(tf.reshape(corners, [-1, 2]), index), tf.size(angles)
    found = Placement(corners, tf.gather(scales, index // count), tf.gather(angles, index % count))
    return highest, found._replace(corner=shrunk_by * found.corner, scale=shrunk_by * found.scale)
