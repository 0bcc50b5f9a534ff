"""A residual U-Net for restoration, chosen for quality per CPU-second; the default.

The trunk is that of `u_shape.py`, the block that of EDSR (Lim et al., CVPRW 2017): no normalisation. Every residual
block starts as the identity (its last convolution is zero), which makes a plain network train from the first step,
keeps each replica's result its own business, and lets a tile be computed alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from training.models import u_shape

FEATURES, BLOCKS = (48, 72, 96, 144), (1, 2, 2, 2)
_REACH = 2  # of a block: two 3x3 convolutions


def halo(blocks: Sequence[int]) -> int:
    """Pixels around an output pixel that can influence it, on each side, of `blocks` at each resolution."""
    return u_shape.halo(blocks, _REACH)


def residual_block(x: tf.Tensor, features: int) -> tf.Tensor:
    """EDSR's block, the identity at first: float32 `[N, h, w, features]` to the same shape."""
    y = tf.keras.layers.Conv2D(features, 3, padding="same", kernel_initializer="he_normal", activation="relu")(x)
    return x + tf.keras.layers.Conv2D(features, 3, padding="same", kernel_initializer="zeros")(y)


def unet(features: Sequence[int] = FEATURES, blocks: Sequence[int] = BLOCKS) -> tf.keras.Model:
    """Builds the network.

    Args:
      features: channels at each resolution, from half the picture's downwards.
      blocks: residual blocks at each resolution, on the way down and again on the way up; as long as `features`.

    Returns:
      A model from float32 `[N, H, W, 3]` in 0..1, H and W multiples of `u_shape.stride(blocks)`, to the outputs of
      `head.restorer`.
    """
    return u_shape.restorer(features, blocks, residual_block, "unet")
