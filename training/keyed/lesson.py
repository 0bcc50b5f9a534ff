"""What the repair network reads, and what it learns from: many marks, inverted almost rightly.

A mark is laid over a clean crop, and then happens to it what happens to pictures, such as being saved as a JPEG. The
layer that is handed to the inversion is the true one but for what locating and fitting get wrong: a fraction of a pixel
and a little of the opacity, in some of the crops.
"""

from __future__ import annotations

import math

import ml_collections
import tensorflow as tf

from training import corruption
from training.corruption import random
from training.keyed.blend import OPAQUE, invert, transmission


def repair_input(picture: tf.Tensor, layer: tf.Tensor, opacity: tf.Tensor | float = 1.0) -> tf.Tensor:
    """Puts together what the repair network reads.

    Args:
      picture: float32 `[..., 3]` in 0..1, with the mark.
      layer: float32 `[..., 4]`, premultiplied colour and alpha where the canvas lies over it.
      opacity: float32 scalar, that it was laid on with.

    Returns:
      float32 `[..., 8]` in 0..1: the inverted picture; the picture; the mark's alpha times its opacity; the confidence:
      1 where nothing amplifies noise, falling with the logarithm of the amplification to 0 where the mark is opaque.
    """
    alpha = opacity * layer[..., 3:]
    shows = transmission(alpha, 1.0)
    confidence = 1.0 - tf.math.log(shows) / math.log(OPAQUE)
    return tf.concat([tf.clip_by_value(invert(picture, layer, opacity), 0.0, 1.0), picture, alpha, confidence], -1)


def _moved(layer: tf.Tensor, shift: tf.Tensor) -> tf.Tensor:
    """Layers `[N, H, W, 4]` moved by less than a pixel, `[N, 2]`, with linear interpolation; borders are repeated."""
    for axis in (1, 2):
        by = tf.reshape(shift[:, axis - 1], [-1, 1, 1, 1])
        padding = [[0, 0] if other != axis else [1, 1] for other in range(4)]
        padded = tf.pad(layer, padding, "SYMMETRIC")
        length = tf.shape(layer)[axis]
        before, after = (tf.gather(padded, tf.range(length) + start, axis=axis) for start in (0, 2))
        layer = layer * (1.0 - tf.abs(by)) + tf.nn.relu(by) * before + tf.nn.relu(-by) * after
    return layer


def keyed_source(spec: str, config: ml_collections.ConfigDict) -> corruption.Corruption:
    """Makes the function from clean crops to what the repair network reads.

    Args:
      spec: of the overlays: `watermark` with the normal blend, one or several; see `training.corruption.spec`.
      config: `after`, the spec of what happens to an overlaid picture; `misfit`, the share of the crops whose layer is
        not quite right; `shift`, by how many pixels at most; `opacity_error`, by what share of it at most.

    Returns:
      `source(clean, seeds) -> (source, alpha)`, a `Corruption` but for `source`: float32 `[N, H, W, 8]`, see
      `repair_input`.

    Raises:
      UserError: a spec, or a file it names, that cannot be used.
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
