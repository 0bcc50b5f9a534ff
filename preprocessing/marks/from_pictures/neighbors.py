"""Box means and sums of adjacent pixels, for images `[..., H, W]`."""

from __future__ import annotations

import numpy as np


def box(x: np.ndarray, radius: int) -> np.ndarray:
    """Box filter over the last two axes, in float32; faster than running sums for small radii."""
    for axis in (-2, -1):
        margin = [(0, 0)] * x.ndim
        margin[axis] = (radius, radius)
        padded = np.pad(x, margin, mode="edge").swapaxes(axis, -2)
        length = x.shape[axis]
        total = padded[..., :length, :].copy()
        for shift in range(1, 2 * radius + 1):
            total += padded[..., shift : shift + length, :]
        x = (total / np.float32(2 * radius + 1)).swapaxes(axis, -2)
    return x


def sums(x: np.ndarray, axis: int) -> np.ndarray:
    """Returns the sums of adjacent values along axis -2 or -1."""
    return x[..., 1:, :] + x[..., :-1, :] if axis == -2 else x[..., 1:] + x[..., :-1]
