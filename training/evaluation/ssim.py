"""Structural similarity of a restored image and the clean one, over all pixels or only the covered ones."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

BORDER = 5  # pixels on each side without a value: the window is 11 wide and must lie inside the image
_STRIP = 512  # rows of the map computed at once, so that memory does not grow with the image's height


def ssim_map(picture: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """Returns the SSIM of each window that lies inside the image.

    As in Wang et al. (2004): a Gaussian window of 11 x 11 pixels with standard deviation 1.5, computed per channel and
    then averaged over channels.

    Args:
      picture: uint8 `[H, W, 3]`.
      clean: uint8 `[H, W, 3]`.

    Returns:
      float32 `[H - 10, W - 10]` in -1..1, indexed by the window's center; empty if a side is below 11 pixels.
    """
    height, width = (max(side - 2 * BORDER, 0) for side in picture.shape[:2])
    local = np.empty((height, width), np.float32)
    for top in range(0, height if width else 0, _STRIP):
        rows = slice(top, top + _STRIP + 2 * BORDER)
        local[top : top + _STRIP] = tf.image.ssim(picture[rows], clean[rows], 255, return_index_map=True).numpy()
    return local


def mean_ssim(local: np.ndarray, where: np.ndarray | None = None) -> float:
    """Averages an SSIM map.

    Args:
      local: map from `ssim_map`, float32 `[H - 10, W - 10]`.
      where: bool `[H, W]`, the pixels whose windows to average; None for all.

    Returns:
      Mean SSIM, -1..1; NaN if there are no windows to average.
    """
    if where is not None:
        local = local[where[BORDER:-BORDER, BORDER:-BORDER]] if local.size else local
    return float(local.mean(dtype=np.float64)) if local.size else float("nan")
