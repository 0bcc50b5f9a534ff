"""The repair network's input, and its training examples: many watermarks, inverted almost correctly.

A watermark is laid over a clean crop, which then suffers what images suffer, such as being saved as a JPEG. The layer
used for the inversion is the true one, except that some crops get the errors of locating and fitting: a fraction of a
pixel, and a little of the opacity.
"""

from __future__ import annotations

import math

import ml_collections
import tensorflow as tf

from training import corruption
from training.corruption import random
from training.keyed.blend import OPAQUE, invert, transmission


def repair_input(picture: tf.Tensor, layer: tf.Tensor, opacity: tf.Tensor | float = 1.0) -> tf.Tensor:
    """Builds the repair network's input.

    Args:
      picture: float32 `[..., 3]` in 0..1, with the watermark.
      layer: float32 `[..., 4]`, premultiplied color and alpha of the canvas where it lies over the image.
      opacity: float32 scalar, the opacity it was laid on with.

    Returns:
      float32 `[..., 8]` in 0..1: the inverted image (3), the image (3), the watermark's alpha times its opacity, and a
      confidence: 1 where inversion does not amplify noise, falling with the logarithm of the amplification to 0 where
      the watermark is opaque.
    """
    alpha = opacity * layer[..., 3:]
    shows = transmission(alpha, 1.0)
    confidence = 1.0 - tf.math.log(shows) / math.log(OPAQUE)
    return tf.concat([tf.clip_by_value(invert(picture, layer, opacity), 0.0, 1.0), picture, alpha, confidence], -1)


def _moved(layer: tf.Tensor, shift: tf.Tensor) -> tf.Tensor:
    """Moves layers `[N, H, W, 4]` by less than a pixel, `[N, 2]`, with linear interpolation; repeats the border."""
    for axis in (1, 2):
        by = tf.reshape(shift[:, axis - 1], [-1, 1, 1, 1])
        padding = [[0, 0] if other != axis else [1, 1] for other in range(4)]
        padded = tf.pad(layer, padding, "SYMMETRIC")
        length = tf.shape(layer)[axis]
        before, after = (tf.gather(padded, tf.range(length) + start, axis=axis) for start in (0, 2))
        layer = layer * (1.0 - tf.abs(by)) + tf.nn.relu(by) * before + tf.nn.relu(-by) * after
    return layer


def keyed_source(spec: str, config: ml_collections.ConfigDict) -> corruption.Corruption:
    """Makes the function from clean crops to the repair network's input.

    Args:
      spec: a corruption spec of one or several `watermark`s with the normal blend; see `training.corruption.spec`.
      config: `after`, the corruption spec applied to an overlaid image; `misfit`, the share of crops with an inexact
        layer; `shift`, its largest shift in pixels; `opacity_error`, its largest relative error of the opacity.

    Returns:
      `source(clean, seeds) -> (source, alpha)`, a `Corruption` except that `source` is float32 `[N, H, W, 8]`, as
      `repair_input` returns it.

    Raises:
      UserError: a spec, or a file that it names, cannot be used.
    """
    overlay, after = corruption.build_layer(spec), corruption.build(config.after or "clean")

    def source(clean: tf.Tensor, seeds: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        layer = overlay(clean, random.fold(seeds, 0))
        laid = clean * (1.0 - layer[..., 3:]) + layer[..., :3]
        picture, _ = after(laid, random.fold(seeds, 1))
        draws = random.per_picture(random.fold(seeds, 2), 4)
        is_misfit = tf.cast(draws[:, :1] < config.misfit, tf.float32)
        found = _moved(layer, is_misfit * config.shift * (2.0 * draws[:, 1:3] - 1.0))
        found *= (1.0 + is_misfit * config.opacity_error * (2.0 * draws[:, 3:] - 1.0))[:, :, None, None]
        return repair_input(picture, tf.minimum(found, 1.0)), layer[..., 3:]

    return source
