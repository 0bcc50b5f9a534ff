"""A small NAFNet with local statistics.

The block of Chen et al. (*Simple Baselines for Image Restoration*, ECCV 2022) on the trunk of `u_shape.py`: layer
normalisation over a pixel's channels, gates in place of activations, a depthwise 3x3 convolution as the only one that
looks sideways, and channel attention in its simplest form. What differs from the paper:

- Channel attention averages over a window, not over the picture. An average over all of it makes a pixel depend on
  every other: a tile would not equal the whole. Chu et al. (*Improving Image Restoration by Revisiting Global
  Information Aggregation*, ECCV 2022) exchange the average for a local one once the network is trained, since pictures
  are larger than training crops; here it is local in training already, so both see the same.
- The picture is folded into half its resolution first, as in `u_shape.py`.

At a picture's border the window's average is over the part of it that lies inside. So is a tile's, and the halo keeps
that away from what is used.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import tensorflow as tf

from training.models import u_shape

FEATURES, BLOCKS = (32, 64, 128), (1, 2, 4)
_EPSILON = 1e-6  # as in the paper's code


def halo(blocks: Sequence[int], window: int) -> int:
    """Pixels around an output pixel that can influence it, on each side.

    Args:
      blocks: blocks at each resolution.
      window: side of the window that attention averages over, in samples of its resolution; odd.
    """
    return u_shape.halo(blocks, 1 + window // 2)


class Scale(tf.keras.layers.Layer):
    """A factor a channel that starts at zero, so that a block starts as the identity."""

    def build(self, shape: tf.TensorShape) -> None:
        self.scale = self.add_weight("scale", [shape[-1]], initializer="zeros")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return x * self.scale


def _gate(x: tf.Tensor) -> tf.Tensor:
    one, other = tf.split(x, 2, axis=-1)
    return one * other


def _block(x: tf.Tensor, features: int, window: int) -> tf.Tensor:
    layers = tf.keras.layers

    def conv(channels: int, **options: str) -> tf.keras.layers.Layer:
        return layers.Conv2D(channels, 1, kernel_initializer="lecun_normal", **options)

    # Keras takes all channels for a depthwise kernel's inputs; each output has nine, and this keeps their variance.
    sideways = layers.DepthwiseConv2D(
        3, padding="same", depthwise_initializer=tf.keras.initializers.RandomNormal(stddev=1 / 3)
    )
    y = _gate(sideways(conv(2 * features)(layers.LayerNormalization(epsilon=_EPSILON)(x))))
    # "SAME" divides by the number of samples inside the picture.
    average = tf.nn.avg_pool2d(y, window, 1, "SAME")
    y = y * conv(features, bias_initializer="ones")(average)  # attention starts near 1, neutral
    x = x + Scale()(conv(features)(y))
    y = _gate(conv(2 * features)(layers.LayerNormalization(epsilon=_EPSILON)(x)))
    return x + Scale()(conv(features)(y))


def nafnet(features: Sequence[int] = FEATURES, blocks: Sequence[int] = BLOCKS, window: int = 7) -> tf.keras.Model:
    """Builds the network.

    Args:
      features: channels at each resolution, from half the picture's downwards.
      blocks: blocks at each resolution, on the way down and again on the way up; as long as `features`.
      window: side of the window that attention averages over, in samples of its resolution; odd.

    Returns:
      A model from float32 `[N, H, W, 3]` in 0..1, H and W multiples of `u_shape.stride(blocks)`, to the outputs of
      `head.restorer`.
    """
    return u_shape.restorer(features, blocks, functools.partial(_block, window=window), "nafnet")
