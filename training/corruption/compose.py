"""Combines corruptions: one after the other, or one of several per image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable

import numpy as np
import tensorflow as tf

from training.corruption import random

Corruption = Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]

# Opacity above which a pixel counts as covered: a fainter overlay changes it by a few levels at most.
COVERED = 0.02


def to_levels(pictures: tf.Tensor) -> tf.Tensor:
    """Clips to 0..1 and rounds to the 256 levels of an 8-bit image."""
    return tf.round(tf.clip_by_value(pictures, 0.0, 1.0) * 255.0) / 255.0


def clean(pictures: tf.Tensor, seeds: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the images unchanged."""
    del seeds
    return pictures, tf.zeros_like(pictures[..., :1])


def chain(parts: Sequence[Corruption]) -> Corruption:
    """Applies corruptions one after the other, each to an 8-bit image; a pixel counts as covered if any covers it."""

    def corrupt(pictures: tf.Tensor, seeds: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        open_share = tf.ones_like(pictures[..., :1])
        for number, part in enumerate(parts):
            pictures, alpha = part(to_levels(pictures), random.fold(seeds, number))
            open_share *= 1.0 - alpha
        return pictures, 1.0 - open_share

    return corrupt


def choice(options: Sequence[Corruption], weights: Sequence[float]) -> Corruption:
    """Applies one of several corruptions to each image.

    All are computed for all images: a branch per image would leave an accelerator waiting, and XLA has no such branch.
    """
    ends = np.cumsum(weights)[:-1]

    def corrupt(pictures: tf.Tensor, seeds: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        draw = random.per_picture(seeds, 1)
        chosen = tf.reduce_sum(tf.cast(draw >= ends.astype(np.float32), tf.int32), axis=1)
        corrupted, alpha = tf.zeros_like(pictures), tf.zeros_like(pictures[..., :1])
        for number, option in enumerate(options):
            mine = (chosen == number)[:, None, None, None]
            result, covered = option(pictures, random.fold(seeds, number))
            corrupted, alpha = tf.where(mine, result, corrupted), tf.where(mine, covered, alpha)
        return corrupted, alpha

    return corrupt
