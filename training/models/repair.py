"""The network behind keyed restoration: repairs the errors that inverting a known blend leaves.

Inverting a located watermark leaves JPEG's quantization, amplified by `1 / (1 - a)`, traces of a misfit of a fraction
of a pixel, and holes where the watermark is opaque. None of that depends on which watermark it was, so one network,
trained on many, serves all (see `training.keyed.lesson`). The trunk is that of `u_shape.py`; the residual is zero for
uncovered pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from training.models import u_shape
from training.models.unet import residual_block

FEATURES, BLOCKS = (16, 32, 64, 128), (0, 2, 1, 2)
# Input channels: the inverted image (3), the image (3), the watermark's alpha, and the confidence of the inversion.
CHANNELS, _ALPHA = 8, 6


def repair(features: Sequence[int] = FEATURES, blocks: Sequence[int] = BLOCKS) -> tf.keras.Model:
    """Builds the network.

    Args:
      features: channels at each resolution, from half the image's downwards.
      blocks: residual blocks at each resolution, on the way down and again on the way up; as long as `features`.

    Returns:
      A model from float32 `[N, H, W, CHANNELS]` in 0..1, from `training.keyed.lesson.repair_input`, H and W multiples
      of `u_shape.stride(blocks)`, to two outputs: the repaired image, float32 `[N, H, W, 3]`, not clipped, which is the
      inverted image at initialization; and zeros, float32 `[N, H, W, 1]`, as the watermark's place is known.
    """
    source = tf.keras.layers.Input((None, None, CHANNELS))
    features_ = u_shape.trunk(source, features, blocks, residual_block)
    # In float32 under any policy, as in `head`.
    conv = tf.keras.layers.Conv2D(3 * u_shape.FOLD**2, 3, padding="same", kernel_initializer="zeros", dtype="float32")
    residual = tf.nn.depth_to_space(conv(features_), u_shape.FOLD)
    alpha = source[..., _ALPHA : _ALPHA + 1]
    repaired = source[..., :3] + tf.where(alpha > 0.0, residual, 0.0)
    return tf.keras.Model(source, [repaired, tf.zeros_like(alpha)], name="repair")
