"""Smoothing that preserves a mark's edges: removes the noise that rounding and JPEG left in an estimate.

Images are float64 `[H, W]` or `[H, W, C]`; beyond the border, the border's values are repeated.
"""

from __future__ import annotations

import numpy as np


def box(picture: np.ndarray, radius: int) -> np.ndarray:
    """Box filter.

    Args:
      picture: float64 `[H, W]` or `[H, W, C]`.
      radius: the box's side is `2 radius + 1` pixels.

    Returns:
      The mean of the box around each pixel, in the shape of the input.
    """
    width = 2 * radius + 1
    for axis in (0, 1):
        margin = [(radius + 1, radius) if axis == other else (0, 0) for other in range(picture.ndim)]
        sums = np.cumsum(np.pad(picture, margin, mode="edge"), axis, np.float64)
        length = sums.shape[axis]
        picture = (
            np.take(sums, np.arange(width, length), axis) - np.take(sums, np.arange(length - width), axis)
        ) / width
    return picture


def guided(picture: np.ndarray, variance: float, radius: int = 1) -> np.ndarray:
    """Smooths noise and keeps edges: the guided filter (He et al., ECCV 2010), with the image as its own guide.

    Args:
      picture: float64 `[H, W]`.
      variance: the noise's variance; windows that vary no more than this become flat.
      radius: radius of the windows, pixels.

    Returns:
      float64 `[H, W]`.
    """
    mean = box(picture, radius)
    spread = box(picture * picture, radius) - mean * mean
    gain = np.maximum(spread - variance, 0) / (spread + 1e-9)
    return box(gain, radius) * picture + box((1 - gain) * mean, radius)


def toward_usual(values: np.ndarray, deviation: float, steps: int = 100) -> np.ndarray:
    """Pulls noisy opacities toward common ones (empirical Bayes).

    A mark has few opacities: that of its strokes and 0, with only edges in between. Their distribution is estimated
    from all values together (Kiefer and Wolfowitz's maximum likelihood, by EM). Each value is then replaced by its
    posterior mean.

    Args:
      values: float `[N]`, true values within 0..255, plus noise.
      deviation: the noise's standard deviation.
      steps: number of EM steps.

    Returns:
      float64 `[N]` within 0..255.
    """
    bins = np.arange(np.floor(values.min()), np.ceil(values.max()) + 1)
    observed = np.histogram(np.rint(values), np.append(bins, bins[-1] + 1) - 0.5)[0] / values.size
    levels = np.arange(256.0)
    likelihood = np.exp(-0.5 * ((bins[:, None] - levels) / deviation) ** 2) + 1e-30
    prior = np.full(256, 1 / 256)
    for _ in range(steps):
        prior *= likelihood.T @ (observed / (likelihood @ prior))
        prior /= prior.sum()
    posterior = likelihood * prior
    return np.interp(values, bins, posterior @ levels / posterior.sum(1))
