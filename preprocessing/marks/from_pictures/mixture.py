"""What a mark is, from aligned pictures that carry it, where nothing else is known of them.

    found = fit(Stack(pixels, inside))

`alternation` has the equations. Here: when it starts, settles and ends, where the mark is certain to be, so that all
else is exactly transparent, what flat strokes have in common (`colors`), and how sure its opacity is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from preprocessing.marks.from_flats import flats
from preprocessing.marks.from_pictures import colors, neighbors, poisson
from preprocessing.marks.from_pictures.alternation import GREY, Alternation, Stack

_STEPS = 12
_CONVERGED = 4e-4
# Of significance, in units of noise with four degrees of freedom: what is certainly the mark, and what belongs to it.
_SEED, _GROWN = 70.0, 20.0


class Mixture(NamedTuple):
    """A mark.

    Attributes:
      alpha: float32 `[H, W]` in 0..1, exactly 0 where there is no mark.
      premultiplied: float32 `[3, H, W]` in 0..255, colour times alpha.
      opacities: float64 `[N]`, that each picture has the mark with; their median is 1.
      deviation: float32 `[H, W]`, alpha's standard error.
    """

    alpha: np.ndarray
    premultiplied: np.ndarray
    opacities: np.ndarray
    deviation: np.ndarray


def _grown(mask: np.ndarray, radius: int) -> np.ndarray:
    """Everything within a square of a mask's pixels."""
    return neighbors.box(mask.astype(np.float32), radius) > 1e-6


def _connected(seeds: np.ndarray, possible: np.ndarray) -> np.ndarray:
    """All that is possible and, step by step, touches a seed."""
    while True:
        grown = _grown(seeds, 1) & possible
        if (grown == seeds).all():
            return seeds
        seeds = grown


class _Noise(NamedTuple):
    """How large the effects of nothing are, in units of what the pairs' precisions say."""

    all_four: float
    contrast: float


def _significance(state: Alternation, information: poisson.NeighborPairs) -> np.ndarray:
    effect = state.effect()
    return (effect * information.times(effect)).sum(0)


def _noise(state: Alternation) -> _Noise:
    information = state.information()
    significance = _significance(state, information)[state.free]
    # Of chi squared with four degrees of freedom, a quarter is below 1.92: also where a mark covers half of all.
    unit = max(float(np.quantile(significance, 0.25)) / 1.92, 1e-9)
    nothing = significance < 10 * unit
    contrast = (state.effect()[0] ** 2 * information.slope_information())[state.free]
    return _Noise(unit, float(contrast[nothing].mean()))


def _support(state: Alternation, noise: _Noise) -> np.ndarray:
    significance = _significance(state, state.information()) / noise.all_four
    seeds = (neighbors.box(significance, 1) > _SEED) & (significance > _SEED)
    return _connected(seeds, significance > _GROWN)


def fit(stack: Stack, watch: Callable[[Iterable, str], Iterable] = lambda steps, _: steps) -> Mixture:
    """Separates a mark from the pictures that carry it.

    Args:
      stack: five pictures or more, with the mark at the same pixels of all.
      watch: shows progress over an iterable, named by a text.

    Returns:
      The mark, transparent everywhere if there is none.
    """
    state = Alternation(stack)
    noise = None
    for step in watch(range(_STEPS), "separating the mark"):
        state.observe(3 if step < 3 else 2 if step < 5 else 1, with_opacity=step > 2)
        if step == 4:
            noise = _noise(state)
            state.fix(_grown(_support(state, noise), 3))
        moved = state.move(is_first=step == 0)
        if step < 4:
            state.settle()
        if step < 2:
            state.guess_opaque()
        if step > 5 and moved < _CONVERGED:
            break
    support = _support(state, noise)
    alpha, own = np.zeros(support.shape), np.zeros((3, *support.shape))
    if support.any():
        information = state.blend_information()[support] / noise.all_four
        found = colors.toward_usual(1.0 - state.shows[support], state.own[:, support].T, information)
        found = colors.toward_usual_looks(*found, information, GREY[:, 0, 0].astype(np.float64))
        alpha[support], own[:, support] = found[0], found[1].T
    deviation = state.shows * np.sqrt(noise.contrast / np.maximum(state.information().slope_information(), 1e-12))
    return Mixture(
        np.clip(alpha, 0, 1).astype(np.float32),
        np.clip(np.tensordot(flats.TO_RGB, own, 1), 0, 255).astype(np.float32),
        state.opacities,
        deviation.astype(np.float32),
    )
