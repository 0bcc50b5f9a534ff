"""Evaluates the network on held-out crops during training."""

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

_STREAM = 2  # seed stream; `training.data.pairs` uses 0 and 1 for the training step
_BATCH = 4


class Validation:
    """Fixed crops under a fixed corruption, so that figures from different steps can be compared."""

    def __init__(self, config: ml_collections.ConfigDict):
        """Draws the crops and overlays them.

        Attributes:
          clean: uint8 `[N, H, W, 3]`.
          source: float32 `[N, H, W, C]` in 0..1, the network's input.
          corrupted: uint8 `[N, H, W, 3]`, the images to restore: the first three channels of `source`.
          covered: bool `[N, H, W]`, the pixels that an overlay covers.
          before: the figures of `corrupted`, see `judge`.

        Raises:
          UserError: the dataset is not finished, has no such split, or the spec cannot be used.
        """
        spec = config.source if config.val == "same" else config.val
        self.clean = validation_crops(config)
        seeds = corruption.picture_seeds(config.seed, tf.constant(0), _STREAM, len(self.clean))
        source, alpha = make_source(config, spec)(tf.cast(self.clean, tf.float32) / 255.0, seeds)
        self.corrupted = tf.cast(tf.round(source[..., :3] * 255.0), tf.uint8).numpy()
        # Real input has 8 bits, and the further channels of a repair network were computed from 8-bit images.
        self.source = np.concatenate([self.corrupted / np.float32(255.0), source.numpy()[..., 3:]], axis=-1)
        self.covered = alpha.numpy()[..., 0] > corruption.COVERED
        self.before = psnr.summarize(self.corrupted, self.clean, self.covered)

    def judge(self, restored: np.ndarray) -> dict[str, float]:
        """Compares restored crops, uint8 `[N, H, W, 3]`, with the clean ones; see `psnr.summarize`."""
        return psnr.summarize(restored, self.clean, self.covered)


def make_restore(network: tf.keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    """Makes a function that restores images with the network's current weights in float32, as an export does.

    Args:
      network: maps float32 `[N, H, W, C]` in 0..1 to float32 `[N, H, W, 3]`; its layers compute in float32.

    Returns:
      `restore(source) -> restored`, float32 `[N, H, W, C]` in 0..1 to uint8 `[N, H, W, 3]`, in small batches.
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
