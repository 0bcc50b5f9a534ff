"""The blend of a canvas over an image, and its inverse."""

from __future__ import annotations

import tensorflow as tf

# Transmission below which a watermark counts as opaque: inversion cannot recover what it covers.
OPAQUE = 0.02


def transmission(alpha: tf.Tensor, opacity: tf.Tensor) -> tf.Tensor:
    """Returns the share of the image that shows through, at least `OPAQUE`; alpha `[..., 1]`, opacity a scalar."""
    return tf.maximum(1.0 - opacity * alpha, OPAQUE)


def invert(picture: tf.Tensor, layer: tf.Tensor, opacity: tf.Tensor) -> tf.Tensor:
    """Solves `x = (1 - t a) y + t a c` for y.

    Args:
      picture: float32 `[..., 3]` in 0..1, x.
      layer: float32 `[..., 4]`, premultiplied color and alpha of the canvas where it lies over the image.
      opacity: float32 scalar, t.

    Returns:
      float32 `[..., 3]`, not clipped. The rounding of x to 8 bits is amplified by `1 / transmission`.
    """
    return (picture - opacity * layer[..., :3]) / transmission(layer[..., 3:], opacity)
