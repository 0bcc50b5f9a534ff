"""How near a restored picture is to the clean one."""

from __future__ import annotations

import numpy as np

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


def summarize(pictures: np.ndarray, clean: np.ndarray, covered: np.ndarray) -> dict[str, float]:
    """Mean PSNR over pictures.

    Args:
      pictures: uint8 `[N, H, W, 3]`.
      clean: likewise.
      covered: bool `[N, H, W]`, where an overlay fell.

    Returns:
      `psnr` over all pixels, `covered_psnr` and `uncovered_psnr`, each a mean in dB over the pictures that have such
      pixels.
    """

    def mean(masks: list) -> float:
        values = [psnr(*triple) for triple in zip(pictures, clean, masks)]
        values = [value for value in values if not np.isnan(value)]
        return float(np.mean(values)) if values else float("nan")

    return {
        "psnr": mean([None] * len(pictures)),
        "covered_psnr": mean(list(covered)),
        "uncovered_psnr": mean(list(~covered)),
    }
