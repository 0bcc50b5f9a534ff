"""Features in which images with the same mark agree: whitened edges, so that strong edges cannot outweigh a faint mark.

A mark of color c adds `(c - y) grad(a)` to the gradient of an image y. If the mark is brighter or darker than most
images, this has the same sign in all; if it is gray, the sign depends on the image's brightness. So there are two
features, the gradient and the gradient times the local brightness; at least one agrees in images with the same mark.
"""

from __future__ import annotations

import numpy as np

from preprocessing.marks import smoothing

_NEIGHBOURHOOD = 6
# Levels: smaller gradients are noise, however flat their neighborhood is.
_NOISE = 2.0
_CLIP = 2.0
_MIDDLE, _SPREAD = 118.0, 60.0


def whitened_edges(picture: np.ndarray, factor: int = 1) -> np.ndarray:
    """Computes an image's features.

    Args:
      picture: uint8 `[H, W, 3]`.
      factor: downscaling factor applied first; leftover pixels at the right and bottom are ignored.

    Returns:
      complex64 `[2, H / factor, W / factor]`: the gradient, horizontal as real and vertical as imaginary part; alone,
      and times the local brightness.
    """
    height, width = (size // factor * factor for size in picture.shape[:2])
    gray = picture[:height, :width].mean(-1, dtype=np.float32)
    if factor > 1:
        gray = gray.reshape(height // factor, factor, width // factor, factor).mean((1, 3))
    edges = np.zeros(gray.shape, np.complex64)
    edges[:, :-1] += np.diff(gray, axis=1)
    edges[:-1] += 1j * np.diff(gray, axis=0)
    size = np.abs(edges)
    strength = np.sqrt(smoothing.box(np.minimum(size, 10 * size.mean()) ** 2, _NEIGHBOURHOOD)) + _NOISE
    edges /= np.maximum(strength, size / _CLIP)
    bright = np.clip((smoothing.box(gray, 3) - _MIDDLE) / _SPREAD, -2, 2)
    return np.stack([edges, edges * bright]).astype(np.complex64)


def fast_length(length: int) -> int:
    """Returns the smallest length, from this one up, for which Fourier transforms are fast."""
    while True:
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
        length += 1


class Agreement:
    """Sums of features over images at the same place, and how far they exceed chance."""

    def __init__(self, height: int, width: int) -> None:
        self.sums = np.zeros((2, height, width), np.complex128)
        self._power = np.zeros((2, height, width))
        self._count = np.zeros((height, width), int)

    def add(self, features: np.ndarray, top: int, left: int) -> None:
        """Adds an image whose top left corner is at (top, left) in the frame; parts outside the frame are ignored."""
        to, own = _overlap(self.sums.shape[1:], features.shape[1:], (top, left))
        part = features[(slice(None), *own)]
        self.sums[(slice(None), *to)] += part
        self._power[(slice(None), *to)] += np.abs(part) ** 2
        self._count[to] += 1

    def significance(self) -> np.ndarray:
        """Returns a chi-squared-like statistic, averaged over 3 x 3 pixels: `[H, W]`, 0 for fewer than five images."""
        chi = (np.abs(self.sums) ** 2 / (self._power + 0.05 * self._power.mean() + 1e-9)).sum(0)
        return smoothing.box(np.where(self._count >= 5, chi, 0), 1)


def _overlap(
    frame: tuple[int, int], picture: tuple[int, int], corner: tuple[int, int]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    to = tuple(slice(max(at, 0), max(min(at + size, limit), 0)) for limit, size, at in zip(frame, picture, corner))
    own = tuple(slice(part.start - at, max(part.stop - at, part.start - at)) for part, at in zip(to, corner))
    return to, own
