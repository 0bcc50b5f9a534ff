"""Training pairs: each crop is overlaid twice, by the same function whether on the device or on the host."""

from __future__ import annotations

from typing import Callable, NamedTuple

import ml_collections
import tensorflow as tf

from common.command_line import UserError
from training import corruption
from training.keyed.lesson import keyed_source

_SOURCE, _TARGET = 0, 1  # seed streams


class Pairs(NamedTuple):
    """A training batch.

    Attributes:
      source: float32 `[N, H, W, C]` in 0..1, the network's input; its first three channels are the image to restore.
      target: float32 `[N, H, W, 3]` in 0..1, the image that the output is compared with.
      weight: float32 `[N, H, W, 1]`, each pixel's weight in the restoration loss.
      covered: float32 `[N, H, W, 1]`, 1 where an overlay covers the source, else 0.
      covered_weight: float32 `[N, H, W, 1]`, each pixel's weight in the presence loss, which learns `covered`.
      target_coverage: float32 `[N]`, share of the target's pixels that an overlay covers.
    """

    source: tf.Tensor
    target: tf.Tensor
    weight: tf.Tensor
    covered: tf.Tensor
    covered_weight: tf.Tensor
    target_coverage: tf.Tensor


def make_source(config: ml_collections.ConfigDict, spec: str) -> corruption.Corruption:
    """Makes the function that turns clean crops into network input.

    Args:
      config: a recipe; reads `model.name` and `keyed`.
      spec: spec of the overlays.

    Returns:
      A `Corruption`; for a repair network it adds further channels, see `training.keyed.lesson`.

    Raises:
      UserError: the spec, or a file it names, cannot be used.
    """
    return keyed_source(spec, config.keyed) if config.model.name == "repair" else corruption.build(spec)


def make_pairs(config: ml_collections.ConfigDict) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], Pairs]:
    """Makes the function that turns clean crops into pairs.

    Args:
      config: a recipe; reads `source`, `target`, `mask_target`, `covered_weight`, `weight_by_alpha`, and the fields
        that `make_source` reads.

    Returns:
      `pairs(images, source_seeds, target_seeds) -> Pairs`: `images` is uint8 `[N, H, W, 3]`, seeds are int32 `[N, 2]`.

    Raises:
      UserError: a spec, or a file it names, cannot be used.
    """
    if not config.source:
        raise UserError("config.source is empty; give --config.source='watermark:canvas=mark.png'")
    corrupt_source = make_source(config, config.source)
    corrupt_target = corruption.build(config.source if config.target == "same" else config.target)

    def pairs(images: tf.Tensor, source_seeds: tf.Tensor, target_seeds: tf.Tensor) -> Pairs:
        clean = tf.cast(images, tf.float32) / 255.0
        source, source_alpha = corrupt_source(clean, source_seeds)
        target, target_alpha = corrupt_target(clean, target_seeds)
        covered = tf.cast(source_alpha > corruption.COVERED, tf.float32)
        weight = 1.0 + config.covered_weight * (source_alpha if config.weight_by_alpha else covered)
        if config.mask_target:
            weight *= tf.cast(target_alpha == 0.0, tf.float32)
        # Noise and JPEG change an image without covering it: such an image teaches nothing about where overlays are.
        is_overlaid = tf.reduce_max(covered, axis=[1, 2, 3], keepdims=True)
        is_changed = tf.reduce_max(tf.abs(source[..., :3] - clean), axis=[1, 2, 3], keepdims=True) > 0.5 / 255.0
        teaches = tf.where(is_changed, is_overlaid, 1.0)
        target_coverage = tf.reduce_mean(tf.cast(target_alpha > corruption.COVERED, tf.float32), axis=[1, 2, 3])
        return Pairs(source, target, weight, covered, teaches * tf.ones_like(covered), target_coverage)

    return pairs


def make_seeds(config: ml_collections.ConfigDict) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Makes `seeds(step) -> (source_seeds, target_seeds)` for the global batch, each int32 `[batch_size, 2]`."""

    def seeds(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        source, target = (
            corruption.picture_seeds(config.seed, step, stream, config.batch_size) for stream in (_SOURCE, _TARGET)
        )
        return source, target

    return seeds


def overlaid_on_host(
    batches: tf.data.Dataset, config: ml_collections.ConfigDict, first_step: int = 0
) -> tf.data.Dataset:
    """Overlays batches in tf.data, for accelerators with no time to spare; gives the same pairs as the step would.

    Args:
      batches: uint8 `[batch_size, crop, crop, 3]`, one per step.
      config: a recipe.
      first_step: the step that the first batch belongs to.

    Returns:
      A dataset of `Pairs`.
    """
    # On CPUs too, XLA fuses an overlay's per-pixel operations into one pass; only its convolutions are slow there.
    pairs, seeds = tf.function(make_pairs(config), jit_compile=True), make_seeds(config)
    return (
        batches.enumerate(first_step)
        .map(lambda step, images: pairs(images, *seeds(step)), num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )
