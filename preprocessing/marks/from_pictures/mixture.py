"""Estimates a mark from aligned images that carry it, of which nothing else is known.

    found = fit(Stack(pixels, inside))

`alternation` has the equations. This module decides when they start, settle and end; finds where the mark certainly is,
so that the rest is exactly transparent; applies what flat strokes have in common (`colors`); and estimates the error of
the opacity.
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
# Significance, in units of noise with four degrees of freedom: of certain mark pixels, and of pixels connected to them.
_SEED, _GROWN = 70.0, 20.0


class Mixture(NamedTuple):
    """An estimated mark.

    Attributes:
      alpha: float32 `[H, W]` in 0..1, exactly 0 where there is no mark.
      premultiplied: float32 `[3, H, W]` in 0..255, color times alpha.
      opacities: float64 `[N]`, the mark's relative opacity in each image; the median is 1.
      deviation: float32 `[H, W]`, alpha's standard error.
    """

    alpha: np.ndarray
    premultiplied: np.ndarray
    opacities: np.ndarray
    deviation: np.ndarray


def _grown(mask: np.ndarray, radius: int) -> np.ndarray:
    """Dilates a mask by a square of `radius` pixels."""
    return neighbors.box(mask.astype(np.float32), radius) > 1e-6


def _connected(seeds: np.ndarray, possible: np.ndarray) -> np.ndarray:
    """Returns the possible pixels that are connected to a seed."""
    while True:
        grown = _grown(seeds, 1) & possible
        if (grown == seeds).all():
            return seeds
        seeds = grown


class _Noise(NamedTuple):
    """The size of effects where there is no mark, in units of what the pairs' precisions predict."""

    all_four: float
    contrast: float


def _significance(state: Alternation, information: poisson.NeighborPairs) -> np.ndarray:
    effect = state.effect()
    return (effect * information.times(effect)).sum(0)


def _noise(state: Alternation) -> _Noise:
    information = state.information()
    significance = _significance(state, information)[state.free]
    # The lower quartile of chi squared with four degrees of freedom is 1.92; it is usable even if a mark covers half.
    unit = max(float(np.quantile(significance, 0.25)) / 1.92, 1e-9)
    nothing = significance < 10 * unit
    contrast = (state.effect()[0] ** 2 * information.slope_information())[state.free]
    return _Noise(unit, float(contrast[nothing].mean()))


def _support(state: Alternation, noise: _Noise) -> np.ndarray:
    significance = _significance(state, state.information()) / noise.all_four
    seeds = (neighbors.box(significance, 1) > _SEED) & (significance > _SEED)
    return _connected(seeds, significance > _GROWN)


def fit(stack: Stack, watch: Callable[[Iterable, str], Iterable] = lambda steps, _: steps) -> Mixture:
    """Separates a mark from the images that carry it.

    Args:
      stack: five or more images, with the mark at the same pixels in all.
      watch: wraps an iterable, with a label, to show progress.

    Returns:
      The mark; fully transparent if there is none.
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
