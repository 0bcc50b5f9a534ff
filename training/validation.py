"""Judging the network on held-out crops while it trains."""

from __future__ import annotations

from typing import Callable

import ml_collections
import numpy as np
import tensorflow as tf

from training import corruption
from training.data.input_pipeline import validation_crops
from training.data.pairs import make_source
from training.distributed import devices
from training.evaluation import psnr

_STREAM = 2  # of seeds, apart from the training step's
_BATCH = 4


class Validation:
    """Fixed crops under a fixed corruption, so that figures of different steps compare."""

    def __init__(self, config: ml_collections.ConfigDict):
        """Draws the crops and overlays them.

        Attributes:
          clean: uint8 `[N, H, W, 3]`.
          source: float32 `[N, H, W, C]` in 0..1, what the network sees.
          corrupted: uint8 `[N, H, W, 3]`, the picture in it that is to be restored.
          before: the figures of `corrupted`, see `judge`.

        Raises:
          UserError: no finished dataset, no such split, or a spec that cannot be used.
        """
        spec = config.source if config.val == "same" else config.val
        self.clean = validation_crops(config)
        seeds = corruption.picture_seeds(config.seed, tf.constant(0), _STREAM, len(self.clean))
        source, alpha = make_source(config, spec)(tf.cast(self.clean, tf.float32) / 255.0, seeds)
        self.corrupted = tf.cast(tf.round(source[..., :3] * 255.0), tf.uint8).numpy()
        # Pictures come as 8 bits; what a repair network sees beside them was computed from such.
        self.source = np.concatenate([self.corrupted / np.float32(255.0), source.numpy()[..., 3:]], axis=-1)
        self.covered = alpha.numpy()[..., 0] > corruption.COVERED
        self.before = psnr.summarize(self.corrupted, self.clean, self.covered)

    def judge(self, restored: np.ndarray) -> dict[str, float]:
        """Compares restored crops, uint8 `[N, H, W, 3]`, with the clean ones; see `metrics.summarize`."""
        return psnr.summarize(restored, self.clean, self.covered)


def make_restore(network: tf.keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    """Makes the function that restores pictures with the network's present weights, as an export will: in float32.

    Args:
      network: float32 `[N, H, W, C]` in 0..1 to float32 `[N, H, W, 3]`, whose layers compute in float32.

    Returns:
      `restore(source) -> restored`, float32 `[N, H, W, C]` in 0..1 to uint8 `[N, H, W, 3]`, computed a few at a time.
    """

    @tf.function
    def forward(source: tf.Tensor) -> tf.Tensor:
        restored = network(source, training=False)
        return tf.cast(tf.round(tf.clip_by_value(restored, 0.0, 1.0) * 255.0), tf.uint8)

    def restore(source: np.ndarray) -> np.ndarray:
        batches = range(0, len(source), _BATCH)
        with devices.rewriting(False):
            return np.concatenate([forward(source[k : k + _BATCH]).numpy() for k in batches])

    return restore
