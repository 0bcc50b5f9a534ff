"""A synthetic marked image; keyed exports are tested on it before they are published."""

from __future__ import annotations

import numpy as np
from PIL import Image

_HEIGHT, _WIDTH = 480, 640
_OCTAVES = (4, 8, 16, 32, 64, 128)  # noise cells along the height
_RANGE = (40.0, 215.0)  # gray levels, away from black and white so that nothing is clipped


def _texture() -> np.ndarray:
    """Makes smooth structure at all scales, as in photos: float64 `[480, 640, 3]`, always the same."""
    rng = np.random.default_rng(0)
    total = np.zeros((_HEIGHT, _WIDTH, 3))
    for cells in _OCTAVES:
        grid = rng.uniform(-1.0, 1.0, (cells, cells * _WIDTH // _HEIGHT, 3)).astype(np.float32)
        for channel in range(3):
            octave = Image.fromarray(grid[..., channel]).resize((_WIDTH, _HEIGHT), Image.Resampling.BICUBIC)
            total[..., channel] += np.asarray(octave) / cells
    total -= total.min()
    return _RANGE[0] + total / total.max() * (_RANGE[1] - _RANGE[0])


def marked(rgba: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Applies a mark to the sample image at the opacity of its file, with its center of mass in the middle.

    Args:
      rgba: the mark, uint8 `[h, w, 4]`.

    Returns:
      The marked and the clean image, both uint8 `[480, 640, 3]`.
    """
    clean = np.round(_texture())
    alpha = rgba[..., 3].astype(np.float64)
    weights = alpha.sum(axis=1), alpha.sum(axis=0)
    middle = [int(np.average(np.arange(len(weight)), weights=weight)) for weight in weights]
    top, left = _HEIGHT // 2 - middle[0], _WIDTH // 2 - middle[1]
    layer = np.zeros((_HEIGHT, _WIDTH, 4))
    rows = slice(max(top, 0), min(top + rgba.shape[0], _HEIGHT))
    columns = slice(max(left, 0), min(left + rgba.shape[1], _WIDTH))
    layer[rows, columns] = rgba[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    opacity = layer[..., 3:] / 255.0
    laid = np.round(clean * (1.0 - opacity) + layer[..., :3] * opacity)
    return laid.astype(np.uint8), clean.astype(np.uint8)
