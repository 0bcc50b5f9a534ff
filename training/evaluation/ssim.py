"""Structural similarity of a restored picture and the clean one, over all of it or over what an overlay covered."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

BORDER = 5  # pixels on each side without a value: the window is 11 wide and lies inside the picture
_STRIP = 512  # rows of the map computed at once, so that memory does not grow with a picture's height


def ssim_map(picture: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """SSIM of each window that lies inside the picture.

    As Wang et al. (2004) have it: a Gaussian window of 11 x 11 pixels and standard deviation 1.5; each channel alone,
    then their mean.

    Args:
      picture: uint8 `[H, W, 3]`.
      clean: likewise.

    Returns:
      float32 `[H - 10, W - 10]` in -1..1, by the window's middle; without elements where a side is below 11 pixels.
    """
    height, width = (max(side - 2 * BORDER, 0) for side in picture.shape[:2])
    local = np.empty((height, width), np.float32)
    for top in range(0, height if width else 0, _STRIP):
        rows = slice(top, top + _STRIP + 2 * BORDER)
        local[top : top + _STRIP] = tf.image.ssim(picture[rows], clean[rows], 255, return_index_map=True).numpy()
    return local


def mean_ssim(local: np.ndarray, where: np.ndarray | None = None) -> float:
    """Mean of a map.

    Args:
      local: see `ssim_map`.
      where: bool `[H, W]`, the pixels of the picture around which windows count; all of them where None.

    Returns:
      -1..1; NaN where no window counts.
    """
    if where is not None:
        local = local[where[BORDER:-BORDER, BORDER:-BORDER]] if local.size else local
    return float(local.mean(dtype=np.float64)) if local.size else float("nan")
