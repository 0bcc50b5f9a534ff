"""The U-shaped trunk of `unet`, `nafnet` and `repair`; the first two differ in the block that it repeats.

It follows U-Net (Ronneberger et al., MICCAI 2015). The image is folded into half its resolution first (space to depth),
so the wide, expensive convolutions never run at full resolution. From there, `Halving` halves the resolution at each
step on the way down. On the way up, a 1x1 convolution and depth to space double it, and the features that the way down
had at that resolution are added.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable

import tensorflow as tf

from training.models import head

FOLD = 2  # pixels per side that are folded into channels


def stride(blocks: Sequence[int]) -> int:
    """Returns the multiple, in pixels, that an image's sides must be, given the blocks at each resolution."""
    return FOLD * 2 ** (len(blocks) - 1)


def halo(blocks: Sequence[int], reach: int) -> int:
    """Returns how many pixels on each side of an output pixel can influence it.

    Args:
      blocks: number of blocks at each resolution.
      reach: samples on each side that a block reads.

    Returns:
      The halo that a tile needs for its inside to equal the untiled result.
    """
    spacing = FOLD  # between neighboring samples at the current resolution, in pixels
    pixels = spacing  # stem
    for level, count in enumerate(blocks):
        if level:
            pixels += spacing  # `Halving` reads 2x2 samples
            spacing *= 2
        pixels += reach * count * spacing
    # Unfolding adds nothing: a coarse sample only feeds the finer ones in its place.
    for count in reversed(blocks[:-1]):
        spacing //= 2
        pixels += reach * count * spacing
    pixels += head.REACH * spacing
    return pixels + FOLD - 1  # folding itself


class Halving(tf.keras.layers.Conv2D):
    """A 2x2 convolution of stride 2, computed as `space_to_depth` and a 1x1 convolution: the same mathematics.

    oneDNN computes the strided convolution wrongly in bfloat16 on processors with AMX: from 48 to 72 channels, it is
    off by 67 to 145 percent. The weights are shaped as for the strided convolution, so that older checkpoints load.
    """

    def __init__(self, features: int):
        super().__init__(features, 2, strides=2, kernel_initializer="he_normal")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """float32 `[N, h, w, C]`, h and w even, to `[N, h / 2, w / 2, features]`."""
        kernel = tf.reshape(self.kernel, [1, 1, -1, self.filters])
        return tf.nn.bias_add(tf.nn.conv2d(tf.nn.space_to_depth(x, 2), kernel, 1, "VALID"), self.bias)


Block = Callable[[tf.Tensor, int], tf.Tensor]


def trunk(source: tf.Tensor, features: Sequence[int], blocks: Sequence[int], block: Block) -> tf.Tensor:
    """Builds the layers around a block.

    Args:
      source: Keras input, float32 `[N, H, W, C]` in 0..1, H and W multiples of `stride(blocks)`.
      features: channels at each resolution, from half the image's downwards.
      blocks: blocks at each resolution, on the way down and again on the way up; as long as `features`.
      block: `block(x, channels)`, Keras layers from float32 `[N, h, w, channels]` to the same shape.

    Returns:
      float32 `[N, H / FOLD, W / FOLD, features[0]]`.
    """
    layers = tf.keras.layers
    x = tf.nn.space_to_depth(source - 0.5, FOLD)
    x = layers.Conv2D(features[0], 3, padding="same", kernel_initializer="he_normal")(x)
    skips = []
    for level, (width, count) in enumerate(zip(features, blocks)):
        if level:
            skips.append(x)
            x = Halving(width)(x)
        for _ in range(count):
            x = block(x, width)
    for skip, width, count in reversed(list(zip(skips, features, blocks))):
        x = layers.Conv2D(4 * width, 1, kernel_initializer="he_normal")(x)
        x = tf.nn.depth_to_space(x, 2) + skip
        for _ in range(count):
            x = block(x, width)
    return x


def build_network(features: Sequence[int], blocks: Sequence[int], block: Block, name: str) -> tf.keras.Model:
    """Builds a blind network around a block.

    Args:
      features: channels at each resolution, from half the image's downwards.
      blocks: blocks at each resolution, on the way down and again on the way up; as long as `features`.
      block: `block(x, channels)`, Keras layers from float32 `[N, h, w, channels]` to the same shape.
      name: the model's name.

    Returns:
      A model from float32 `[N, H, W, 3]` in 0..1, H and W multiples of `stride(blocks)`, to the outputs of
      `head.build_network`.
    """
    picture = tf.keras.layers.Input((None, None, 3))
    return head.build_network(picture, trunk(picture, features, blocks, block), FOLD, name)
