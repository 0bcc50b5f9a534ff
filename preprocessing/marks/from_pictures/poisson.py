"""Fields whose differences between neighbours are known, each with a precision: a Poisson problem with matrix weights.

Finds the fields f `[4, H, W]` that minimize, over all pairs of neighbours,

    (df + g)' A (df + g)    with    A = [[aa, ab'], [ab, diag(bb)]]    and    h = A g given,

as least squares fits of one slope and three intercepts leave them: conjugate gradients, preconditioned by the same
problem with one A for all pairs, which sine transforms solve at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from preprocessing.marks.from_pictures import features

# Draws all fields to 0, so weakly that it only decides what nothing else does; in units of the mean A.
_RIDGE = 1e-4


class NeighborPairs(NamedTuple):
    """Normal equations of all pairs of neighbours along one axis; float64, of the picture's size less one there.

    Attributes:
      aa: `[h, w]`, of the slope.
      ab: `[3, h, w]`, of slope and intercept.
      bb: `[3, h, w]`, of the intercepts.
      h: `[4, h, w]`, the right-hand side.
    """

    aa: np.ndarray
    ab: np.ndarray
    bb: np.ndarray
    h: np.ndarray

    @classmethod
    def nothing(cls, height: int, width: int) -> NeighborPairs:
        """The sums over no pictures; a trace keeps pairs that none shows from being divided by 0."""
        shape = (height, width)
        return cls(np.full(shape, 1e-9), np.zeros((3, *shape)), np.full((3, *shape), 1e-12), np.zeros((4, *shape)))

    def leave_slope_to_first(self) -> None:
        """Takes `aa` and `h[0]` for sums of the first channel; the others then tell nothing of the slope. In place."""
        share = self.ab[1:] / self.bb[1:]
        self.aa[...] += (share * self.ab[1:]).sum(0)
        self.h[0] += (share * self.h[2:]).sum(0)

    def forget(self, unknown: np.ndarray) -> None:
        """Makes pairs count as nothing, in place; bool `[h, w]`."""
        for sums, nothing in zip(self, (1e-9, 0.0, 1e-12, 0.0)):
            sums[..., unknown] = nothing

    def times(self, change: np.ndarray) -> np.ndarray:
        """A times a change `[4, h, w]`."""
        slope, intercepts = change[0], change[1:]
        return np.concatenate(
            [(self.aa * slope + (self.ab * intercepts).sum(0))[None], self.ab * slope + self.bb * intercepts]
        )

    def matrix(self) -> np.ndarray:
        """The pairs' mean A, `[4, 4]`."""
        mean = np.diag([self.aa.mean(), *self.bb.mean((1, 2))])
        mean[0, 1:] = mean[1:, 0] = self.ab.mean((1, 2))
        return mean

    def own(self) -> np.ndarray:
        """Each pair's g, as if it were alone: `[4, h, w]`."""
        share = self.ab / self.bb
        slope = (self.h[0] - (share * self.h[1:]).sum(0)) / np.maximum(self.slope_information(), 1e-12)
        return np.concatenate([slope[None], self.h[1:] / self.bb - share * slope])

    def slope_information(self) -> np.ndarray:
        """Of the slope, with the intercepts unknown: `[h, w]`."""
        return self.aa - (self.ab**2 / self.bb).sum(0)


def _gathered(pairs: tuple[NeighborPairs, NeighborPairs], flows: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The transpose of taking differences, of what `flows` gives down and to the right."""
    height, width = pairs[1].aa.shape[0], pairs[0].aa.shape[1]
    out = np.zeros((4, height, width))
    out[:, 1:] += flows[0]
    out[:, :-1] -= flows[0]
    out[:, :, 1:] += flows[1]
    out[:, :, :-1] -= flows[1]
    return out


def _sine(x: np.ndarray) -> np.ndarray:
    """The sine transform (DST-I) of the last two axes."""
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
      pairs: of vertical and of horizontal neighbours.
      free: bool `[H, W]`, where the fields may differ from 0. If that is everywhere, the fields' means stay near 0.
      tolerance: of the residual, relative to what it is for f = 0.
      steps: of conjugate gradients at most.

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
