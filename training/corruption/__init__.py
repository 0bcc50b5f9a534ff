"""In-graph corruption: turns a spec into a function of clean images and seeds."""

from __future__ import annotations

from typing import Callable

import tensorflow as tf

from training.corruption import compose, random
from training.corruption import spec as spec_lib
from training.corruption.compose import COVERED, Corruption
from training.corruption.jpeg import JpegLoss
from training.corruption.noise import GaussianNoise, ImpulseNoise, PoissonNoise
from training.corruption.text_overlay import TextOverlay
from training.corruption.watermark_overlay import WatermarkOverlay

__all__ = ["COVERED", "Corruption", "build", "build_layer", "picture_seeds"]


def _make(spec: spec_lib.Spec) -> Corruption:
    if isinstance(spec, spec_lib.Chain):
        return compose.chain([_make(part) for part in spec.parts])
    if isinstance(spec, spec_lib.Choice):
        return compose.choice([_make(option) for option in spec.options], spec.weights)
    if isinstance(spec, spec_lib.Clean):
        return compose.clean
    return _LEAVES[type(spec)](spec)


_LEAVES = {
    spec_lib.Watermark: WatermarkOverlay,
    spec_lib.Text: TextOverlay,
    spec_lib.Gaussian: GaussianNoise,
    spec_lib.Poisson: PoissonNoise,
    spec_lib.Impulse: ImpulseNoise,
    spec_lib.Jpeg: JpegLoss,
}


def build(text: str) -> Corruption:
    """Makes the corruption that a spec names.

    Args:
      text: a spec, see `training.corruption.spec`.

    Returns:
      `corrupt(clean, seeds) -> (corrupted, alpha)`, pure graph ops that XLA compiles once: `clean` is float32
      `[N, H, W, 3]` in 0..1, H and W known when traced; `seeds` is int32 `[N, 2]`, one per image; `corrupted` is like
      `clean`, on the 256 levels of an 8-bit image; `alpha` is float32 `[N, H, W, 1]`, the overlay's opacity, 0 where
      there is none. The same seed gives the same overlay whatever else is in the batch.

    Raises:
      UserError: the spec or a file that it names cannot be used.
    """
    corruption = _make(spec_lib.parse(text))

    def corrupt(clean: tf.Tensor, seeds: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        corrupted, alpha = corruption(clean, seeds)
        return compose.to_levels(corrupted), alpha

    return corrupt


def build_layer(text: str) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Makes the overlay that a spec names, as a separate layer.

    Args:
      text: a spec of overlays with the normal blend, `x = (1 - a) y + a c`.

    Returns:
      `layer(clean, seeds)`: float32 `[N, H, W, 4]`, the premultiplied color `a c` and the opacity a that
      `build(text)` lays over `clean` with the same seeds.

    Raises:
      UserError: the spec or a file that it names cannot be used.
    """
    corruption = _make(spec_lib.parse(text))

    def layer(clean: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        # Over black, nothing but the overlay is left.
        return tf.concat(corruption(tf.zeros_like(clean), seeds), axis=-1)

    return layer


def picture_seeds(run_seed: int, step: tf.Tensor, stream: int, global_batch: int) -> tf.Tensor:
    """Derives one seed per image of a global batch.

    Args:
      run_seed: the run's seed.
      step: int32 or int64 scalar, the training step.
      stream: tells independent draws of one step apart (source, target, …).
      global_batch: images per step over all replicas; a replica takes its own rows, so that a step draws the same
        numbers on one device as on eight.

    Returns:
      int32 `[global_batch, 2]`.
    """
    step_seed = random.bits(tf.stack([tf.constant(run_seed, tf.int32), tf.cast(step, tf.int32)]), [2], stream)
    return tf.bitcast(random.bits(tf.bitcast(step_seed, tf.int32), [global_batch, 2]), tf.int32)
