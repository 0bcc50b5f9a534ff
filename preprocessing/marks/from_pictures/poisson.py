"""Finds fields from the differences between neighbors and their precisions: a Poisson problem with matrix weights.

The fields f `[4, H, W]` minimize, over all pairs of neighbors,

    (df + g)' A (df + g)    with    A = [[aa, ab'], [ab, diag(bb)]]    and    h = A g given,

where A and h come from least-squares fits of one slope and three intercepts. The solver is conjugate gradients. The
preconditioner is the same problem with one A for all pairs, which sine transforms solve directly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from preprocessing.marks.from_pictures import features

# Pulls all fields toward 0, so weakly that it only decides what nothing else does; in units of the mean A.
_RIDGE = 1e-4


class NeighborPairs(NamedTuple):
    """Normal equations of all pairs of neighbors along one axis; float64, one less than the image's size there.

    Attributes:
      aa: `[h, w]`, for the slope.
      ab: `[3, h, w]`, for slope and intercepts.
      bb: `[3, h, w]`, for the intercepts.
      h: `[4, h, w]`, the right-hand side.
    """

    aa: np.ndarray
    ab: np.ndarray
    bb: np.ndarray
    h: np.ndarray

    @classmethod
    def nothing(cls, height: int, width: int) -> NeighborPairs:
        """Returns the sums over no images, with tiny values that avoid division by 0 for pairs that no image shows."""
        shape = (height, width)
        return cls(np.full(shape, 1e-9), np.zeros((3, *shape)), np.full((3, *shape), 1e-12), np.zeros((4, *shape)))

    def leave_slope_to_first(self) -> None:
        """Makes only the first channel determine the slope, in place; `aa` and `h[0]` must be its sums alone."""
        share = self.ab[1:] / self.bb[1:]
        self.aa[...] += (share * self.ab[1:]).sum(0)
        self.h[0] += (share * self.h[2:]).sum(0)

    def forget(self, unknown: np.ndarray) -> None:
        """Resets the pairs at `unknown`, bool `[h, w]`, to `nothing`, in place."""
        for sums, nothing in zip(self, (1e-9, 0.0, 1e-12, 0.0)):
            sums[..., unknown] = nothing

    def times(self, change: np.ndarray) -> np.ndarray:
        """Returns A times a change `[4, h, w]`."""
        slope, intercepts = change[0], change[1:]
        return np.concatenate(
            [(self.aa * slope + (self.ab * intercepts).sum(0))[None], self.ab * slope + self.bb * intercepts]
        )

    def matrix(self) -> np.ndarray:
        """Returns the mean A of all pairs, `[4, 4]`."""
        mean = np.diag([self.aa.mean(), *self.bb.mean((1, 2))])
        mean[0, 1:] = mean[1:, 0] = self.ab.mean((1, 2))
        return mean

    def own(self) -> np.ndarray:
        """Returns each pair's own g, independent of the others: `[4, h, w]`."""
        share = self.ab / self.bb
        slope = (self.h[0] - (share * self.h[1:]).sum(0)) / np.maximum(self.slope_information(), 1e-12)
        return np.concatenate([slope[None], self.h[1:] / self.bb - share * slope])

    def slope_information(self) -> np.ndarray:
        """Returns the information on the slope if the intercepts are unknown: `[h, w]`."""
        return self.aa - (self.ab**2 / self.bb).sum(0)


def _gathered(pairs: tuple[NeighborPairs, NeighborPairs], flows: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Applies the transpose of taking differences to `flows`, downward and to the right."""
    height, width = pairs[1].aa.shape[0], pairs[0].aa.shape[1]
    out = np.zeros((4, height, width))
    out[:, 1:] += flows[0]
    out[:, :-1] -= flows[0]
    out[:, :, 1:] += flows[1]
    out[:, :, :-1] -= flows[1]
    return out


def _sine(x: np.ndarray) -> np.ndarray:
    """Returns the sine transform (DST-I) over the last two axes."""
    for _ in range(2):
        zero = np.zeros_like(x[..., :1])
        x = -np.fft.rfft(np.concatenate([zero, x, zero, -x[..., ::-1]], -1)).imag[..., 1:-1].swapaxes(-1, -2)
    return x


def _preconditioner(mean: np.ndarray, height: int, width: int) -> Callable[[np.ndarray], np.ndarray]:
    inverse = np.linalg.inv(mean)
    tall, wide = features.fast_length(height + 1) - 1, features.fast_length(width + 1) - 1
    rows, columns = (2 - 2 * np.cos(np.pi * np.arange(1, size + 1) / (size + 1)) for size in (tall, wide))
    scale = 1 / ((rows[:, None] + columns) * (tall + 1) * (wide + 1))

    def apply(x: np.ndarray) -> np.ndarray:
        padded = np.pad(np.tensordot(inverse, x, 1), ((0, 0), (0, tall - height), (0, wide - width)))
        return _sine(_sine(padded) * scale)[:, :height, :width]

    return apply


def solve(
    pairs: tuple[NeighborPairs, NeighborPairs], free: np.ndarray, tolerance: float = 2e-2, steps: int = 60
) -> np.ndarray:
    """Finds the fields.

    Args:
      pairs: of vertical and of horizontal neighbors.
      free: bool `[H, W]`, where the fields may differ from 0. If that is everywhere, the fields' means stay near 0.
      tolerance: residual at which to stop, relative to that of f = 0.
      steps: maximum number of conjugate gradient steps.

    Returns:
      float64 `[4, H, W]`.
    """
    mean = (pairs[0].matrix() + pairs[1].matrix()) / 2

    def operator(x: np.ndarray) -> np.ndarray:
        flows = pairs[0].times(np.diff(x, axis=1)), pairs[1].times(np.diff(x, axis=2))
        return free * _gathered(pairs, flows) + np.tensordot(_RIDGE * mean, x, 1)

    condition = _preconditioner(mean, *free.shape)
    residual = -(free * _gathered(pairs, (pairs[0].h, pairs[1].h)))
    found = np.zeros_like(residual)
    better = free * condition(residual)
    direction, power = better, (residual * better).sum()
    enough = tolerance**2 * power
    for _ in range(steps):
        if power <= enough or power <= 0:
            break
        image = operator(direction)
        length = power / (direction * image).sum()
        found += length * direction
        residual -= length * image
        better = free * condition(residual)
        new = (residual * better).sum()
        direction, power = better + new / power * direction, new
    return found
