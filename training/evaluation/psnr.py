"""How near a restored picture is to the clean one."""

from __future__ import annotations

import numpy as np

from training.evaluation import ssim

MEASURES = ("psnr", "covered_psnr", "uncovered_psnr", "ssim", "covered_ssim")

# Mean squared error below which a picture counts as exact (68 dB), so that one exact crop does not swamp a mean.
_EXACT = 1e-2


def psnr(picture: np.ndarray, clean: np.ndarray, where: np.ndarray | None = None) -> float:
    """Peak signal-to-noise ratio.

    Args:
      picture: uint8 `[H, W, 3]`.
      clean: likewise.
      where: bool `[H, W]`, the pixels that count; all of them where None.

    Returns:
      dB, at most 68; NaN where no pixel counts.
    """
    squared = np.square(picture.astype(np.float32) - clean.astype(np.float32))
    if where is not None:
        if not where.any():
            return float("nan")
        squared = squared[where]
    return float(10.0 * np.log10(255.0**2 / max(float(squared.mean(dtype=np.float64)), _EXACT)))


def measure(picture: np.ndarray, clean: np.ndarray, covered: np.ndarray) -> dict[str, float]:
    """Compares a picture with the clean one.

    Args:
      picture: uint8 `[H, W, 3]`.
      clean: likewise.
      covered: bool `[H, W]`, where an overlay fell.

    Returns:
      `MEASURES`: PSNR in dB, SSIM in -1..1; NaN where there are no such pixels and, for SSIM, where a side is below 11.
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
    """Means over pictures.

    Args:
      pictures: uint8 `[N, H, W, 3]`.
      clean: likewise.
      covered: bool `[N, H, W]`, where an overlay fell.

    Returns:
      `MEASURES`, each a mean over the pictures that have such pixels; NaN where none has.
    """
    measured = [measure(*triple) for triple in zip(pictures, clean, covered)]
    means = {}
    for name in MEASURES:
        values = [figures[name] for figures in measured if not np.isnan(figures[name])]
        means[name] = float(np.mean(values)) if values else float("nan")
    return means
