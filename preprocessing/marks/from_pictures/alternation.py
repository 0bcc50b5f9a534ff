"""One round of the estimation: inverts images with the current mark, then improves the mark from the result.

At a pixel p, image n is `x = (1 - t a) y + t b`, where a is the mark's opacity, b its premultiplied color, y the image
beneath, and t the opacity with which the mark was applied to this image. Photographs are independent of the mark, and
this determines a and b: at their true values, the differences `d = y(q) - y(p)` of the inverted images between
neighbors p and q are 0 on average and unrelated to the images' brightness there:

    sum_n w d = 0    and    sum_n w L d = 0,    L the images' local mean, w small at an image's own edges

As long as this does not hold, the two sums give the factor and the offset by which y(q) must change relative to y(p),
as in a regression of d on L. L averages over p and q alike, not only p, so that noise in y does not flatten the slope.
A Poisson problem (`poisson`) reconciles the results of all pairs, each with its precision, and the images are inverted
again with the new a and b. The same condition, summed over an image's pixels instead of over images, gives t.

Using the images' common gradients and reconstructing from them by Poisson's equation is due to Dekel et al., "On the
effectiveness of visible watermarks" (CVPR 2017). They need an initial guess of the opacity by matting; here it follows
from how much the mark reduces contrast. The weights are those of iteratively reweighted least squares.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from preprocessing.marks.from_flats import flats
from preprocessing.marks.from_pictures import neighbors, poisson

# Average YCbCr beneath marks. Levels are taken relative to it, so that slopes and intercepts of the regressions are
# nearly independent.
GREY = np.float32([110, 0, 0])[:, None, None]
_LEAST_TRANSMISSION = 0.02
_PLAUSIBLE = (np.float32([-255, -255, -255])[:, None, None], np.float32([510, 255, 255])[:, None, None])
_RANGE = (np.float32([0, -128, -128])[:, None, None], np.float32([255, 128, 128])[:, None, None])
# Noise in levels: rounding and a little more, so that an image's flat sky does not get infinite weight.
_NOISE = np.float32(0.5)
# Levels: in its neighbors' weights, an edge counts as no stronger than this.
_STRONG = np.float32(50)
# At a slope of 2, one of the two neighbors would show nothing of the image.
_STEEPEST = 1.8
_LARGEST_STEP = 3.0
# Least height and width of the region, in pixels, that an image must show to be usable.
_LEAST_SIDE = 8
# Least number of images that must show a pixel for it to be estimated.
_FEWEST = 5
# Transmission below which a stroke is initialized from its surroundings, and their radius in pixels.
_OPAQUE, _SURROUNDINGS = 0.4, 4
# Precision that pulls each image's opacity toward 1: that of a measurement with a standard error of 0.1.
_SAMENESS = 100.0
_CHROMA_OFF = 0.03


class Stack(NamedTuple):
    """Aligned images.

    Attributes:
      pixels: uint8 `[N, 3, H, W]`.
      inside: int `[N, 4]`, top, bottom, left and right of the valid pixels; the others lie outside the image.
      open_sides: whether the mark may extend beyond the top, bottom, left and right.
    """

    pixels: np.ndarray
    inside: np.ndarray
    open_sides: tuple[bool, bool, bool, bool] = (False, False, False, False)


def _opponent(pixels: np.ndarray) -> np.ndarray:
    """Converts to YCbCr `[3, ...]`, chroma around 0; JPEG stores chroma coarsely, so luma must determine opacity."""
    return np.tensordot(flats.YCBCR.astype(np.float32), pixels.astype(np.float32), 1)


def _straightened(pairs: poisson.NeighborPairs) -> poisson.NeighborPairs:
    """Converts slopes (of a difference over a mean) to differences of logarithms."""
    own = pairs.own()
    own[0] = 2 * np.arctanh(np.clip(own[0], -_STEEPEST, _STEEPEST) / 2)
    return pairs._replace(h=pairs.times(own))


def _opposite(effect: np.ndarray) -> np.ndarray:
    """Returns the change `[4, ...]` that undoes an effect `[4, ...]`."""
    return -np.concatenate([effect[:1], np.exp(-effect[:1]) * effect[1:]])


class Alternation:
    """The current estimate of the mark, improved from the images inverted with it.

    Attributes:
      shows: float32 `[H, W]`, the fraction of the image that shows through, `1 - a`.
      own: float32 `[3, H, W]`, the premultiplied color b as YCbCr, chroma around 0.
      opacities: float64 `[N]`, t of each image; the median is 1.
      free: bool `[H, W]`, where there may be a mark.
      pairs: the sums over images from `observe`, for vertical and horizontal neighbors.
    """

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        height, width = stack.pixels.shape[2:]
        self.shows = np.ones((height, width), np.float32)
        self.own = np.zeros((3, height, width), np.float32)
        self.opacities = np.ones(len(stack.pixels))
        self.free = np.ones((height, width), bool)
        top, bottom, left, right = stack.open_sides
        for is_open, edge in ((top, np.s_[0]), (bottom, np.s_[-1]), (left, np.s_[:, 0]), (right, np.s_[:, -1])):
            if not is_open:
                self.free[edge] = False
        seen = np.zeros((height, width), int)
        for first, last, start, stop in stack.inside:
            seen[first:last, start:stop] += 1
        known = seen >= min(_FEWEST, len(stack.inside))
        self.free &= known
        top, bottom, left, right = stack.inside.T
        self._shown = np.flatnonzero((bottom - top >= _LEAST_SIDE) & (right - left >= _LEAST_SIDE))
        self.opacities[np.setdiff1d(np.arange(len(stack.pixels)), self._shown)] = 0
        self._known_pairs = known[1:] & known[:-1], known[:, 1:] & known[:, :-1]
        self.pairs: tuple[poisson.NeighborPairs, poisson.NeighborPairs] | None = None

    def observe(self, rounds: int, with_opacity: bool = False) -> None:
        """Sums the differences of all images. After the first round, weights ignore what the images have in common.

        Args:
          rounds: number of reweighting rounds.
          with_opacity: whether to improve the opacities too.
        """
        common = None
        for number in range(rounds):
            self._sum_up(common, with_opacity and number == rounds - 1)
            if number < rounds - 1:
                common = [pairs.own().astype(np.float32) for pairs in self.pairs]

    def _sum_up(self, common: list[np.ndarray] | None, with_opacity: bool) -> None:
        height, width = self.shows.shape
        self.pairs = poisson.NeighborPairs.nothing(height - 1, width), poisson.NeighborPairs.nothing(height, width - 1)
        sums = [self._add(number, common, with_opacity) for number in self._shown]
        if with_opacity:
            self._fit_opacities(*np.array(sums).transpose(1, 2, 0))
        for pairs, known in zip(self.pairs, self._known_pairs):
            pairs.leave_slope_to_first()
            pairs.forget(~known)

    def _add(self, number: int, common: list[np.ndarray] | None, with_opacity: bool) -> tuple[np.ndarray, np.ndarray]:
        """Adds an image to the sums; returns moment and curvature, `[3]` each, from which its opacity is fitted."""
        top, bottom, left, right = self._stack.inside[number]
        part = np.s_[..., top:bottom, left:right]
        opacity = np.float32(self.opacities[number])
        shows = np.maximum(1 - opacity * (1 - self.shows[part]), _LEAST_TRANSMISSION)
        inverse = 1 / shows
        own = self.own[part]
        y = np.clip((_opponent(self._stack.pixels[number][part]) - opacity * own) * inverse, *_PLAUSIBLE)
        trust = shows * shows
        low = np.clip(neighbors.box(y * trust, 1) / neighbors.box(trust, 1), *_RANGE) - GREY
        rounding = _NOISE**2 * inverse * inverse
        moment, curvature = np.zeros(3), np.zeros(3)
        for index, axis in enumerate((-2, -1)):
            pair = np.s_[..., top : bottom - (axis == -2), left : right - (axis == -1)]
            d = np.diff(y, axis=axis)
            level = neighbors.sums(low, axis) / 2
            residual = d
            if common is not None:
                residual = d - common[index][0][pair] * level - common[index][1:][pair]
            square = residual * residual
            scale = neighbors.box(np.minimum(square, _STRONG**2).mean(0) + neighbors.sums(rounding, axis), 2)
            weight = 1 / (scale + square)
            weighted_level, weighted_d = weight * level, weight * d
            sums = self.pairs[index]
            sums.aa[pair] += weighted_level[0] * level[0]
            sums.ab[pair] += weighted_level
            sums.bb[pair] += weight
            sums.h[0][pair] += weighted_level[0] * d[0]
            sums.h[1:][pair] += weighted_d
            if with_opacity:
                # Derivative of d with respect to the opacity t, with L in place of y.
                edges = (level + GREY) * np.diff((1 - self.shows[part]) * inverse, axis=axis)
                edges -= np.diff(own * inverse, axis=axis)
                moment += (weighted_d * edges).sum((1, 2))
                curvature += (weight * edges * edges).sum((1, 2))
        return moment, curvature

    def _fit_opacities(self, moment: np.ndarray, curvature: np.ndarray) -> None:
        """Takes a Newton step in the opacity of each image that shows the region."""
        # Chroma at half the resolution may misfit luma's opacity in all images alike; then it is ignored.
        fits = np.abs(moment.sum(1)) < _CHROMA_OFF * curvature.sum(1)
        fits[0] = True
        moment, curvature = moment[fits].sum(0), curvature[fits].sum(0)
        opacities = self.opacities[self._shown]
        change = ((1 - opacities) * _SAMENESS - moment) / (curvature + _SAMENESS)
        opacities = np.clip(opacities + change, 0.0, 2.0)
        self.opacities[self._shown] = opacities / max(np.median(opacities), 0.1)

    def guess_opaque(self) -> None:
        """Initializes opaque strokes by regressing their pixels on their surroundings, over images.

        Where little shows through, differences between neighbors say little, and it would take many small steps to
        recover from a bad start.
        """
        clear = self.shows > _OPAQUE
        known = neighbors.box(clear.astype(np.float32), _SURROUNDINGS)
        dark = ~clear & (known > 0.1)
        if not dark.any():
            return
        sums = np.zeros((5, 3, *self.shows.shape))
        for number in self._shown:
            top, bottom, left, right = self._stack.inside[number]
            part = np.s_[..., top:bottom, left:right]
            x, trust = _opponent(self._stack.pixels[number][part]), clear[part].astype(np.float32)
            y = np.clip((x - self.own[part]) / self.shows[part], *_PLAUSIBLE)
            level = neighbors.box(y * trust, _SURROUNDINGS) / np.maximum(neighbors.box(trust, _SURROUNDINGS), 1e-3)
            for total, term in zip(sums, (np.ones_like(x), level, x, level * level, level * x)):
                total[part] += term
        sums /= np.maximum(sums[0], 1)
        _, level, x, squares, products = sums
        spread = (squares - level * level).sum(0)
        slope = (products - level * x).sum(0) / np.maximum(spread, 1e-3)
        slope = np.clip(slope, _LEAST_TRANSMISSION, 1).astype(np.float32)
        self.own = np.where(dark, (x - slope * level).astype(np.float32), self.own)
        self.shows = np.where(dark, slope, self.shows)

    def move(self, is_first: bool = False) -> float:
        """Solves for a change, applies it, and returns the mean change of alpha where there is a mark."""
        before = self.shows
        pairs = tuple(map(_straightened, self.pairs)) if is_first else self.pairs
        self.compose(poisson.solve(pairs, self.free))
        mark = self.shows < 0.98
        return float(np.abs(before - self.shows)[mark].mean()) if mark.any() else 0.0

    def compose(self, change: np.ndarray) -> None:
        """Applies a change `[4, H, W]` to the inverted images: log contrast around gray, and the level per channel."""
        change = change.astype(np.float32)
        change[0] = np.clip(change[0], -_LARGEST_STEP, _LARGEST_STEP)
        shows = np.clip(self.shows * np.exp(-change[0]), _LEAST_TRANSMISSION, 1.2)
        self.own = self.own + shows * ((self.shows / shows - 1) * GREY - change[1:])
        self.shows = shows

    def effect(self) -> np.ndarray:
        """Returns the effect of inversion, as `compose` takes it: `[4, H, W]`, all 0 where there is no mark."""
        return np.concatenate([-np.log(self.shows)[None], (GREY - self.own) / self.shows - GREY])

    def settle(self) -> None:
        """If no side is known to be free of the mark, treats the most transparent of the common effects as no mark."""
        if not all(self._stack.open_sides):
            return
        effect = self.effect()[:, self.free]
        counts, edges = np.histogram(effect[0], np.arange(effect[0].min() - 0.01, effect[0].max() + 0.03, 0.01))
        counts = np.convolve(counts, np.ones(3), "same")
        first = np.flatnonzero(counts >= 0.3 * counts.max())[0]
        peak = first + counts[first : first + 6].argmax()
        clear = np.abs(effect[0] - edges[peak : peak + 2].mean()) < 0.015
        common = np.median(effect[:, clear], axis=1)[:, None, None]
        self.compose(_opposite(common) * self.free)

    def information(self) -> poisson.NeighborPairs:
        """Returns each pixel's share of its pairs' normal equations, `[..., H, W]`."""
        vertical, horizontal = self.pairs

        def around(down: np.ndarray, right: np.ndarray) -> np.ndarray:
            empty = [(0, 0)] * (down.ndim - 2)
            below = np.pad(down, [*empty, (1, 1), (0, 0)], mode="edge")
            beside = np.pad(right, [*empty, (0, 0), (1, 1)], mode="edge")
            return (neighbors.sums(below, -2) + neighbors.sums(beside, -1)) / 4

        return poisson.NeighborPairs(*map(around, vertical, horizontal))

    def blend_information(self) -> np.ndarray:
        """Returns `information` in terms of a and the three channels of b: `[H, W, 4, 4]`."""
        effects = self.information()
        matrix = np.zeros((*self.shows.shape, 4, 4))
        matrix[..., 0, 0] = effects.aa
        matrix[..., 0, 1:] = matrix[..., 1:, 0] = np.moveaxis(effects.ab, 0, -1)
        matrix[..., (1, 2, 3), (1, 2, 3)] = np.moveaxis(effects.bb, 0, -1)
        # Derivative of `effect` with respect to a and b.
        inverse = 1 / self.shows
        derivative = np.zeros_like(matrix)
        derivative[..., 0, 0] = inverse
        derivative[..., 1:, 0] = np.moveaxis((GREY - self.own) * inverse**2, 0, -1)
        derivative[..., (1, 2, 3), (1, 2, 3)] = -inverse[..., None]
        return np.swapaxes(derivative, -1, -2) @ matrix @ derivative

    def fix(self, support: np.ndarray) -> None:
        """Removes the mark outside `support`, bool `[H, W]`, for good."""
        self.free &= support
        self.compose(np.where(support, 0, _opposite(self.effect())))
