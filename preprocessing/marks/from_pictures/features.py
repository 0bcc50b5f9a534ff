"""What of a picture can agree with another's: edges, whitened, so that a strong one weighs no more than a faint mark.

A mark of colour c adds `(c - y) grad(a)` to a picture's gradient. Its sign is the mark's own where the mark is brighter
or darker than most pictures, and follows the picture's brightness where it is grey. So there are two features: the
gradient, and the gradient times how bright the picture is around; one of both is alike in pictures with the same mark.
"""

from __future__ import annotations

import numpy as np

from preprocessing.marks import smoothing

_NEIGHBOURHOOD = 6
# Levels: gradients of less are noise, however flat their neighbourhood is.
_NOISE = 2.0
_CLIP = 2.0
_MIDDLE, _SPREAD = 118.0, 60.0


def whitened_edges(picture: np.ndarray, factor: int = 1) -> np.ndarray:
    """Computes a picture's features.

    Args:
      picture: uint8 `[H, W, 3]`.
      factor: by which resolution is reduced first; what is left over to the right and below is not seen.

    Returns:
      complex64 `[2, H / factor, W / factor]`: horizontal and vertical gradients as real and imaginary parts; alone,
      and times the brightness around.
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
    """The next length, or this one, that Fourier transforms are quick for."""
    while True:
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
        length += 1


class Agreement:
    """Sums of features over pictures at the same place, and how far beyond chance they go."""

    def __init__(self, height: int, width: int) -> None:
        self.sums = np.zeros((2, height, width), np.complex128)
        self._power = np.zeros((2, height, width))
        self._count = np.zeros((height, width), int)

    def add(self, features: np.ndarray, top: int, left: int) -> None:
        """Adds a picture whose top left corner lies at a place of the frame; what falls beyond is left out."""
        to, own = _overlap(self.sums.shape[1:], features.shape[1:], (top, left))
        part = features[(slice(None), *own)]
        self.sums[(slice(None), *to)] += part
        self._power[(slice(None), *to)] += np.abs(part) ** 2
        self._count[to] += 1

    def significance(self) -> np.ndarray:
        """Like chi squared, of 3 x 3 pixels' mean: float64 `[H, W]`, 0 where fewer than five pictures are."""
        chi = (np.abs(self.sums) ** 2 / (self._power + 0.05 * self._power.mean() + 1e-9)).sum(0)
        return smoothing.box(np.where(self._count >= 5, chi, 0), 1)


def _overlap(
    frame: tuple[int, int], picture: tuple[int, int], corner: tuple[int, int]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    to = tuple(slice(max(at, 0), max(min(at + size, limit), 0)) for limit, size, at in zip(frame, picture, corner))
    own = tuple(slice(part.start - at, max(part.stop - at, part.start - at)) for part, at in zip(to, corner))
    return to, own
