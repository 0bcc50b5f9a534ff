"""A residual U-Net for restoration, chosen for quality per CPU-second; the default.

The trunk is that of `u_shape.py`; the block is that of EDSR (Lim et al., CVPRW 2017), without normalization. Every
residual block starts as the identity (its last convolution is zero), so the network trains from the first step without
normalization. Results then do not depend on the number of replicas, and a tile can be computed alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from training.models import u_shape

FEATURES, BLOCKS = (48, 72, 96, 144), (1, 2, 2, 2)
_REACH = 2  # samples on each side that a block reads, through two 3x3 convolutions


def halo(blocks: Sequence[int]) -> int:
    """Returns how many pixels on each side of an output pixel can influence it, given the blocks at each resolution."""
    return u_shape.halo(blocks, _REACH)


def residual_block(x: tf.Tensor, features: int) -> tf.Tensor:
    """Builds EDSR's block, the identity at first: float32 `[N, h, w, features]` to the same shape."""
    y = tf.keras.layers.Conv2D(features, 3, padding="same", kernel_initializer="he_normal", activation="relu")(x)
    return x + tf.keras.layers.Conv2D(features, 3, padding="same", kernel_initializer="zeros")(y)


def unet(features: Sequence[int] = FEATURES, blocks: Sequence[int] = BLOCKS) -> tf.keras.Model:
    """Builds the network.

    Args:
      features: channels at each resolution, from half the image's downwards.
      blocks: residual blocks at each resolution, on the way down and again on the way up; as long as `features`.

    Returns:
      A model from float32 `[N, H, W, 3]` in 0..1, H and W multiples of `u_shape.stride(blocks)`, to the outputs of
      `head.build_network`.
    """
    return u_shape.build_network(features, blocks, residual_block, "unet")
