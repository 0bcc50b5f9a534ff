"""A residual U-Net for restoration, chosen for quality per CPU-second.

After U-Net (Ronneberger et al., MICCAI 2015) with the residual blocks of EDSR (Lim et al., CVPRW 2017), and three
choices that were measured here:

- The picture is folded into half its resolution first (space to depth), so the wide, costly convolutions never run
  at full resolution.
- No normalisation: every residual block starts as the identity (its last convolution is zero), which makes a plain
  network train from the first step, keeps each replica's result its own business, and lets a tile be computed alone.
- The head predicts three things a pixel: whether an overlay is present, p in 0..1, and a gain and a bias:
  `y = x + p (g (x - 1/2) + b)`. Undoing a blend `x = (1 - a) y + a c` is just that, with g and b depending on the
  overlay alone, not on the picture beneath it; and p keeps what nothing covers as it was. Where an overlay fell is
  known in training, so p is taught directly.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

_FOLD = 2  # pixels a side folded into channels
# Adam moves every output of the last layer equally fast. Opaque marks need gains of 2 to 10, and a decision needs
# logits of that size, where a bias needs tenths.
_SCALE = 4.0


def halo(blocks: Sequence[int]) -> int:
    """How many pixels around an output pixel can influence it, on each side.

    Args:
      blocks: residual blocks at each resolution.

    Returns:
      The halo a tile needs so that its inside equals the untiled result.
    """
    spacing = _FOLD  # between neighbouring samples at the current resolution, in pixels
    pixels = spacing  # stem
    for level, count in enumerate(blocks):
        if level:
            pixels += spacing  # the 2x2 strided convolution
            spacing *= 2
        pixels += 2 * count * spacing
    for count in reversed(blocks[:-1]):
        spacing //= 2
        pixels += spacing  # unfolding: a coarse sample serves the finer ones under it
        pixels += 2 * count * spacing
    pixels += spacing  # head
    return pixels + _FOLD - 1  # folding itself


def _block(x: tf.Tensor, features: int) -> tf.Tensor:
    y = tf.keras.layers.Conv2D(features, 3, padding="same", kernel_initializer="he_normal", activation="relu")(x)
    return x + tf.keras.layers.Conv2D(features, 3, padding="same", kernel_initializer="zeros")(y)


def unet(features: Sequence[int], blocks: Sequence[int]) -> tf.keras.Model:
    """Builds the network.

    Args:
      features: channels at each resolution, from half the picture's downwards.
      blocks: residual blocks at each resolution, on the way down and again on the way up; as long as `features`.

    Returns:
      A model from float32 `[N, H, W, 3]` in 0..1, H and W multiples of `2 ** len(features)`, to two outputs: the
      restored picture in the same form, not clipped, and float32 `[N, H, W, 1]`, the logits of an overlay's presence.
      At initialisation the first is the input.
    """
    layers = tf.keras.layers
    picture = layers.Input((None, None, 3))
    x = tf.nn.space_to_depth(picture - 0.5, _FOLD)
    x = layers.Conv2D(features[0], 3, padding="same", kernel_initializer="he_normal")(x)
    skips = []
    for level, (width, count) in enumerate(zip(features, blocks)):
        if level:
            skips.append(x)
            x = layers.Conv2D(width, 2, strides=2, kernel_initializer="he_normal")(x)
        for _ in range(count):
            x = _block(x, width)
    for skip, width, count in reversed(list(zip(skips, features, blocks))):
        x = layers.Conv2D(4 * width, 1, kernel_initializer="he_normal")(x)
        x = tf.nn.depth_to_space(x, 2) + skip
        for _ in range(count):
            x = _block(x, width)
    x = layers.Conv2D(7 * _FOLD**2, 3, padding="same", kernel_initializer="zeros")(x)
    gain, bias, logits = tf.split(tf.nn.depth_to_space(x, _FOLD), [3, 3, 1], axis=-1)
    gain, logits = _SCALE * gain, _SCALE * logits
    # A margin at both ends: where the network is sure that nothing fell, the picture is returned to the bit.
    presence = tf.clip_by_value(1.2 * tf.sigmoid(logits) - 0.1, 0.0, 1.0)
    restored = picture + presence * (gain * (picture - 0.5) + bias)
    return tf.keras.Model(picture, [restored, logits], name="unet")
