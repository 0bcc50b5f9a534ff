"""Where a canvas of unknown scale and angle lies: every hypothesis is tried on a small picture, the best is refined.

Instead of the canvas the picture is scaled and turned, so that the canvas's fields are computed once. At a quarter of
the canvas's resolution a mark's score falls to half its height for about 1 percent of scale or 1 degree over 160
canvas pixels to each side, so where the canvas fills the picture only a window of the picture is searched.
"""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from training.keyed import locate
from training.keyed.canvas_features import CanvasFeatures
from training.keyed.placement import Placement, bilinear

LEVEL = 4  # the search's resolution by that of the canvas
_WINDOW = 320.0  # canvas pixels a side
_SCALE_STEP = 1.03
_ANGLE_STEP = math.radians(1.5)


def hypotheses(scales: tuple[float, float], degrees: tuple[float, float]) -> np.ndarray:
    """Scales and angles to try.

    Args:
      scales: lowest and highest.
      degrees: likewise, counter-clockwise.

    Returns:
      float32 `[K, 2]`, scale and radians.
    """
    low, high = np.log(scales)
    scale = np.exp(np.linspace(low, high, 1 + math.ceil((high - low) / math.log(_SCALE_STEP))))
    first, last = np.radians(degrees)
    angle = np.linspace(first, last, 1 + math.ceil((last - first) / _ANGLE_STEP))
    return np.stack(np.meshgrid(scale, angle, indexing="ij"), axis=-1).reshape(-1, 2).astype(np.float32)


def _turned(small: tf.Tensor, angle: tf.Tensor) -> tf.Tensor:
    """A picture seen in a frame that is turned about its top left corner; bilinear, the border repeated."""
    size = tf.shape(small)[:2]
    y = tf.cast(tf.range(size[0]), tf.float32)[:, None] + 0.5
    x = tf.cast(tf.range(size[1]), tf.float32)[None] + 0.5
    sine, cosine = tf.sin(angle), tf.cos(angle)
    return bilinear(small, tf.stack([cosine * y - sine * x, sine * y + cosine * x], axis=-1) - 0.5)


def search(
    picture: tf.Tensor,
    canvas: CanvasFeatures,
    canvas_size: tuple[int, int],
    tried: np.ndarray | tf.Tensor,
    best: int,
    counts: tf.Tensor | None = None,
) -> tuple[Placement, tf.Tensor]:
    """Scores every hypothesis.

    Args:
      picture: float32 `[H, W, 3]` in 0..1.
      canvas: its fields at `1 / LEVEL` of its resolution.
      canvas_size: height and width of the canvas.
      tried: see `hypotheses`.
      best: how many to return.
      counts: float32 `[h, w]`, the picture at a lower resolution: 0 for what is to be left out, else 1.

    Returns:
      Placements with a leading dimension of `best`, the likeliest first, right within a few pixels, and their scores.
    """
    size = tf.cast(tf.shape(picture)[:2], tf.float32)

    def attempt(hypothesis: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        scale, angle = tf.unstack(hypothesis)
        # A canvas that fills the picture shows enough of itself in a window.
        fills = tf.reduce_all(scale * tf.constant(canvas_size, tf.float32) > 0.5 * size)
        side = tf.where(fills & (counts is None), tf.minimum(size, scale * _WINDOW), size)
        start, extent = tf.cast((size - side) / 2.0, tf.int32), tf.cast(side, tf.int32)
        seen = tf.slice(picture, tf.concat([start, [0]], 0), tf.concat([extent, [3]], 0))
        shrunk_size = tf.maximum(8, tf.cast(tf.round(side / (LEVEL * scale)), tf.int32))
        small = tf.image.resize(seen, shrunk_size, antialias=True)
        counted = None
        if counts is not None:
            counted = _turned(tf.image.resize(counts[..., None], shrunk_size), angle)[..., 0]
        fields = locate.picture_fields(_turned(small, angle), LEVEL, counted)
        score, corner = locate.best_offset(locate.score_map(fields, canvas), shrunk_size)
        # From the turned frame's pixels to the picture's; the resized picture is a whole number of pixels.
        y, x = tf.unstack(tf.cast(corner, tf.float32))
        sine, cosine = tf.sin(angle), tf.cos(angle)
        turned = tf.stack([cosine * y - sine * x, sine * y + cosine * x])
        return score, tf.cast(start, tf.float32) + turned * tf.cast(extent, tf.float32) / tf.cast(
            shrunk_size, tf.float32
        )

    signature = (tf.TensorSpec([], tf.float32), tf.TensorSpec([2], tf.float32))
    tried = tf.convert_to_tensor(tried)
    scores, corners = tf.map_fn(attempt, tried, fn_output_signature=signature, parallel_iterations=2)
    scores, index = tf.math.top_k(scores, best)
    chosen = tf.gather(tried, index)
    return Placement(tf.gather(corners, index), chosen[:, 0], chosen[:, 1]), scores
