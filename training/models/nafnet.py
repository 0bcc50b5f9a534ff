"""A small NAFNet with local statistics.

It uses the block of Chen et al. (*Simple Baselines for Image Restoration*, ECCV 2022) on the trunk of `u_shape.py`:
layer normalization over a pixel's channels, gates in place of activations, a depthwise 3x3 convolution as the only one
that reads neighbors, and channel attention in its simplest form. Differences from the paper:

- Channel attention averages over a window, not over the whole image. A global average makes a pixel depend on every
  other one, so a tile's result would differ from the whole image's. Chu et al. (*Improving Image Restoration by
  Revisiting Global Information Aggregation*, ECCV 2022) replace the average by a local one after training, because
  images are larger than training crops. Here it is local in training already, so training and use see the same.
- The image is folded into half its resolution first, as in `u_shape.py`.

At an image's border, the window's average is over the part of the window inside the image. The same happens at a tile's
border, but the halo keeps that away from the pixels that are used.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import tensorflow as tf

from training.models import u_shape

FEATURES, BLOCKS = (32, 64, 128), (1, 2, 4)
_EPSILON = 1e-6  # as in the paper's code


def halo(blocks: Sequence[int], window: int) -> int:
    """Returns how many pixels on each side of an output pixel can influence it.

    Args:
      blocks: number of blocks at each resolution.
      window: side of the window that attention averages over, in samples of its resolution; odd.
    """
    return u_shape.halo(blocks, 1 + window // 2)


class Scale(tf.keras.layers.Layer):
    """A per-channel factor that starts at zero, so that a block starts as the identity."""

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

    # Keras counts all channels as inputs of a depthwise kernel, but each output has nine; this keeps the variance.
    sideways = layers.DepthwiseConv2D(
        3, padding="same", depthwise_initializer=tf.keras.initializers.RandomNormal(stddev=1 / 3)
    )
    y = _gate(sideways(conv(2 * features)(layers.LayerNormalization(epsilon=_EPSILON)(x))))
    # "SAME" divides by the number of samples inside the image.
    average = tf.nn.avg_pool2d(y, window, 1, "SAME")
    y = y * conv(features, bias_initializer="ones")(average)  # attention starts near 1, which is neutral
    x = x + Scale()(conv(features)(y))
    y = _gate(conv(2 * features)(layers.LayerNormalization(epsilon=_EPSILON)(x)))
    return x + Scale()(conv(features)(y))


def nafnet(features: Sequence[int] = FEATURES, blocks: Sequence[int] = BLOCKS, window: int = 7) -> tf.keras.Model:
    """Builds the network.

    Args:
      features: channels at each resolution, from half the image's downwards.
      blocks: blocks at each resolution, on the way down and again on the way up; as long as `features`.
      window: side of the window that attention averages over, in samples of its resolution; odd.

    Returns:
      A model from float32 `[N, H, W, 3]` in 0..1, H and W multiples of `u_shape.stride(blocks)`, to the outputs of
      `head.build_network`.
    """
    return u_shape.build_network(features, blocks, functools.partial(_block, window=window), "nafnet")
