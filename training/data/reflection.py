"""Continuing a picture beyond its edges by its mirror image."""

from __future__ import annotations

import tensorflow as tf


def mirrored_indices(start: int | tf.Tensor, length: int | tf.Tensor, size: int | tf.Tensor) -> tf.Tensor:
    """Indices that read a picture as if it continued mirrored, the edge pixel not repeated.

    As `numpy.pad(mode="reflect")` has it for any amount of padding, where `tf.pad` stops at size - 1.

    Args:
      start: the first pixel along the axis, 0 or more.
      length: how many.
      size: of the picture along the axis, 1 or more.

    Returns:
      int32 `[length]`, each in 0..size - 1.
    """
    period = tf.maximum(2 * (size - 1), 1)
    offset = tf.range(start, start + length) % period
    return tf.minimum(offset, period - offset)
