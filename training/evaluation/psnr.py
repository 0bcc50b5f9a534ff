"""How close a restored image is to the clean one."""

from __future__ import annotations

import numpy as np

from training.evaluation import ssim

MEASURES = ("psnr", "covered_psnr", "uncovered_psnr", "ssim", "covered_ssim")

# Mean squared error, in squared 8-bit levels, below which an image counts as exact (68 dB), so that one exact crop does
# not dominate a mean.
_EXACT = 1e-2


def psnr(picture: np.ndarray, clean: np.ndarray, where: np.ndarray | None = None) -> float:
    """Returns the peak signal-to-noise ratio.

    Args:
      picture: uint8 `[H, W, 3]`.
      clean: uint8 `[H, W, 3]`.
      where: bool `[H, W]`, the pixels to measure; None for all.

    Returns:
      PSNR in dB, at most 68; NaN if there are no pixels to measure.
    """
    squared = np.square(picture.astype(np.float32) - clean.astype(np.float32))
    if where is not None:
        if not where.any():
            return float("nan")
        squared = squared[where]
    return float(10.0 * np.log10(255.0**2 / max(float(squared.mean(dtype=np.float64)), _EXACT)))


def measure(picture: np.ndarray, clean: np.ndarray, covered: np.ndarray) -> dict[str, float]:
    """Compares an image with the clean one.

    Args:
      picture: uint8 `[H, W, 3]`.
      clean: uint8 `[H, W, 3]`.
      covered: bool `[H, W]`, the pixels that an overlay covers.

    Returns:
      `MEASURES`: PSNR in dB, SSIM in -1..1. NaN if there are no such pixels or (SSIM) a side is below 11 pixels.
    """
    local = ssim.ssim_map(picture, clean)
    return {
        "psnr": psnr(picture, clean),
        "covered_psnr": psnr(picture, clean, covered),
        "uncovered_psnr": psnr(picture, clean, ~covered),
        "ssim": ssim.mean_ssim(local),
        "covered_ssim": ssim.mean_ssim(local, covered),
    }


def summarize(pictures: np.ndarray, clean: np.ndarray, covered: np.ndarray) -> dict[str, float]:
    """Averages the measures over images.

    Args:
      pictures: uint8 `[N, H, W, 3]`.
      clean: uint8 `[N, H, W, 3]`.
      covered: bool `[N, H, W]`, the pixels that an overlay covers.

    Returns:
      `MEASURES`, each a mean over the images that have such pixels; NaN if none does.
    """
    measured = [measure(*triple) for triple in zip(pictures, clean, covered)]
    means = {}
    for name in MEASURES:
        values = [figures[name] for figures in measured if not np.isnan(figures[name])]
        means[name] = float(np.mean(values)) if values else float("nan")
    return means
