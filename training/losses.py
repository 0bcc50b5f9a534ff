"""Losses between a restored image and its target, one value per pixel, so that pixels can be weighted.

| name | loss of a pixel with error e | what it converges to when targets are corrupted |
| --- | --- | --- |
| `mae` | |e| | the median (Noise2Noise for text and watermarks) |
| `mse` | e^2 | the mean (Noise2Noise for zero-mean noise) |
| `charbonnier` | sqrt(e^2 + 0.001^2) | the median, smooth at zero (Charbonnier et al., ICIP 1994) |
| `l0` | (|e| + 1e-8)^g, g falling from 2 to 0 over the run | the mode (Noise2Noise for random-valued impulses) |
| `mae+ssim` | 0.16 |e| + 0.84 (1 - SSIM) | (Zhao et al., IEEE TCI 3:47, 2017, with SSIM at one scale) |
"""

from __future__ import annotations

from typing import Callable

import tensorflow as tf

from common.command_line import UserError

_CHARBONNIER = 1e-3  # in units of the error, 0..1
_L0 = 1e-8  # as in Noise2Noise
_SSIM_SHARE, _SSIM_WINDOW = 0.84, 11  # share as in Zhao et al.; window in pixels

PixelLoss = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]


def _per_channel(of_error: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]) -> PixelLoss:
    def loss(restored: tf.Tensor, target: tf.Tensor, done: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(of_error(restored - target, done), axis=-1, keepdims=True)

    return loss


def _annealed_l0(error: tf.Tensor, done: tf.Tensor) -> tf.Tensor:
    return tf.pow(tf.abs(error) + _L0, 2.0 * (1.0 - done))


def _mae_and_ssim(restored: tf.Tensor, target: tf.Tensor, done: tf.Tensor) -> tf.Tensor:
    border = _SSIM_WINDOW // 2
    around = [[0, 0], [border, border], [border, border], [0, 0]]
    # The SSIM map is smaller than the image by half a window on each side, so pad first.
    ssim = tf.image.ssim(
        *(tf.pad(picture, around, "REFLECT") for picture in (restored, target)),
        max_val=1.0,
        filter_size=_SSIM_WINDOW,
        return_index_map=True,
    )
    mae = _per_channel(lambda error, _: tf.abs(error))(restored, target, done)
    return (1.0 - _SSIM_SHARE) * mae + _SSIM_SHARE * (1.0 - ssim[..., None])


_LOSSES: dict[str, PixelLoss] = {
    "mae": _per_channel(lambda error, _: tf.abs(error)),
    "mse": _per_channel(lambda error, _: tf.square(error)),
    "charbonnier": _per_channel(lambda error, _: tf.sqrt(tf.square(error) + _CHARBONNIER**2)),
    "l0": _per_channel(_annealed_l0),
    "mae+ssim": _mae_and_ssim,
}


def pixel_loss(name: str) -> PixelLoss:
    """Looks up a loss by name.

    Args:
      name: one of the names in the module's docstring.

    Returns:
      `loss(restored, target, done) -> [N, H, W, 1]`. Images are float32 `[N, H, W, 3]` in 0..1; `done` is a float32
      scalar, the completed share of the run, 0..1.

    Raises:
      UserError: unknown loss.
    """
    if name not in _LOSSES:
        raise UserError(f"config.loss={name!r}: there is no such loss; there are {', '.join(_LOSSES)}")
    return _LOSSES[name]


def weighted_sum(loss: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """Takes each image's weighted mean and sums over images; `loss` and `weight` are `[N, H, W, 1]`.

    Each image is averaged separately, so that the sum does not depend on how images are spread over replicas.
    """
    total = tf.reduce_sum(loss * weight, axis=[1, 2, 3])
    return tf.reduce_sum(total / tf.maximum(1.0, tf.reduce_sum(weight, axis=[1, 2, 3])))
