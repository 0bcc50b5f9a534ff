"""Judging the network on held-out crops while it trains."""

from __future__ import annotations

from typing import Callable

import ml_collections
import numpy as np
import tensorflow as tf

from training import corruption, metrics
from training.input_pipeline import validation_crops

_STREAM = 2  # of seeds, apart from the training step's
_BATCH = 4


class Validation:
    """Fixed crops under a fixed corruption, so that figures of different steps compare."""

    def __init__(self, config: ml_collections.ConfigDict):
        """Draws the crops and overlays them.

        Attributes:
          clean: uint8 `[N, H, W, 3]`.
          corrupted: likewise.
          before: the figures of `corrupted`, see `judge`.

        Raises:
          UserError: no finished dataset, no such split, or a spec that cannot be used.
        """
        spec = config.source if config.val == "same" else config.val
        self.clean = validation_crops(config)
        seeds = corruption.picture_seeds(config.seed, tf.constant(0), _STREAM, len(self.clean))
        corrupted, alpha = corruption.build(spec)(tf.cast(self.clean, tf.float32) / 255.0, seeds)
        self.corrupted = tf.cast(tf.round(corrupted * 255.0), tf.uint8).numpy()
        self.covered = alpha.numpy()[..., 0] > corruption.COVERED
        self.before = metrics.summarize(self.corrupted, self.clean, self.covered)

    def judge(self, restored: np.ndarray) -> dict[str, float]:
        """Compares restored crops, uint8 `[N, H, W, 3]`, with the clean ones; see `metrics.summarize`."""
        return metrics.summarize(restored, self.clean, self.covered)


def make_restore(network: tf.keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    """Makes the function that restores pictures with the network's present weights.

    Args:
      network: float32 `[N, H, W, 3]` in 0..1 to the same form.

    Returns:
      `restore(pictures) -> restored`, both uint8 `[N, H, W, 3]`, computed a few at a time.
    """

    @tf.function
    def forward(images: tf.Tensor) -> tf.Tensor:
        restored = network(tf.cast(images, tf.float32) / 255.0, training=False)
        return tf.cast(tf.round(tf.clip_by_value(restored, 0.0, 1.0) * 255.0), tf.uint8)

    def restore(pictures: np.ndarray) -> np.ndarray:
        batches = range(0, len(pictures), _BATCH)
        return np.concatenate([forward(pictures[k : k + _BATCH]).numpy() for k in batches])

    return restore
