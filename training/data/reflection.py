"""Extends an image beyond its edges by its mirror image."""

from __future__ import annotations

import tensorflow as tf


def mirrored_indices(start: int | tf.Tensor, length: int | tf.Tensor, size: int | tf.Tensor) -> tf.Tensor:
    """Returns indices that read an image as if it continued mirrored, without repeating the edge pixel.

    Like `numpy.pad(mode="reflect")`, with any amount of padding; `tf.pad` allows at most size - 1.

    Args:
      start: first pixel along the axis, 0 or more.
      length: number of pixels.
      size: size of the image along the axis, 1 or more.

    Returns:
      int32 `[length]`, each in 0..size - 1.
    """
    period = tf.maximum(2 * (size - 1), 1)
    offset = tf.range(start, start + length) % period
    return tf.minimum(offset, period - offset)
