"""Finds a canvas in a picture: as it is, scaled or turned, once or several times."""

from __future__ import annotations

import functools
from typing import Callable, NamedTuple

import numpy as np
import tensorflow as tf

from training.keyed import canvas_features, locate, search
from training.keyed.placement import Placement, at_corner, over_picture
from training.keyed.refine import Match, refine, visible, window

# Highest scores of pictures without the canvas are about 10, seldom 20. Some of 30 to 50 are of a strip along the
# picture's border, or of edges that agree on no opacity: these rules, and one on what is fitted, are for them.
FOUND = 30.0
# Of a match that counts, opacity, and how much is seen of the canvas, in pixels and as a share of its height and width.
_LEAST_OPACITY, _LEAST_SEEN, _LEAST_SHARE = 0.15, 8.0, 0.05
# A match of a lower score, or that less of the canvas agrees on, may be one at a wrong scale.
_CERTAIN, _CONSENSUS = 80.0, 0.85
MOST = 16  # repetitions of a stamp
_LEVELS = (1, 2, 4, 8)
_SEARCHED = 320  # pixels a side, of the canvas or of the picture, in which scale and angle are searched finely
_SHRUNK = 2  # by which a picture is before the coarse search: what of its shrinking all scales have in common
# Points of an FFT, above which the search is at half the resolution: of a first one, and of one that looks closely.
_FEW_POINTS, _MOST_POINTS = 500_000, 1_800_000
# Canvas pixels by which the coarse search is wrong at most.
_MISPLACED = 16.0
# Pixels around a located stamp in which it is not looked for again.
_MARGIN = 2
# Pixels a side in which repeats of a canvas are told apart, and of the largest canvas where they are.
_TELLING, _MOST_TELLING = 256, 4_000_000
# Of the search at unknown scale: around how many it goes on more finely, the score there below which it is not worth
# it to refine one, and how often that is done.
_CANDIDATES, _FAINT, _STEPS = 12, 8.0, 5

# Traced once and called wherever it is needed, in the graph that is written and in the one that runs, which take much
# longer and more memory with everything inlined. Nothing here needs AutoGraph, which takes half the time of tracing.
once = functools.partial(tf.function, autograph=False, experimental_attributes={"_noinline": True})


def in_0_to_1(pixels: tf.Tensor) -> tf.Tensor:
    """uint8 to float32; of a large picture no longer than it takes to crop or shrink it, because of the memory."""
    return tf.cast(pixels, tf.float32) / 255.0


def cropped(pixels: tf.Tensor, corner: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """A window of a picture, uint8 `[H, W, 3]` to float32 `[h, w, 3]` in 0..1; its corner and size int32 `[2]`."""
    return in_0_to_1(tf.slice(pixels, tf.concat([corner, [0]], 0), tf.concat([size, [3]], 0)))


def _shrunk(pixels: tf.Tensor, by: int) -> tf.Tensor:
    """A picture at `1 / by` of its resolution, by averages, uint8 `[H, W, 3]` to float32 in 0..1; a rest is cut off."""
    if by == 1:
        return in_0_to_1(pixels)
    size = tf.maximum(1, tf.shape(pixels)[:2] // by)
    whole = pixels[: size[0] * by, : size[1] * by]
    return tf.raw_ops.ResizeArea(images=whole[None], size=size)[0] / 255.0


class Found(NamedTuple):
    """What was located so far.

    Attributes:
      transforms: float32 `[MOST, 4]`, rows of (dy, dx, scale, rotation).
      count: int32 scalar, how many of them are filled.
    """

    transforms: tf.Tensor
    count: tf.Tensor

    @classmethod
    def nothing(cls) -> Found:
        """Before anything is located."""
        return cls(tf.zeros([MOST, 4]), tf.constant(0))

    def placement(self, index: tf.Tensor) -> Placement:
        """One of them."""
        row = self.transforms[index]
        return Placement(row[:2], row[2], row[3])

    def and_(self, placement: Placement) -> Found:
        """These and one more."""
        row = tf.concat([placement.corner, [placement.scale, placement.rotation]], axis=0)
        return Found(tf.tensor_scatter_nd_update(self.transforms, [[self.count]], row[None]), self.count + 1)


def _surer(one: Match, other: Match) -> Match:
    return tf.cond(one.score >= other.score, lambda: one, lambda: other)


def _is_certain(match: Match) -> tf.Tensor:
    return (match.score >= _CERTAIN) & (match.consensus >= _CONSENSUS)


class Finder:
    """Finds one canvas."""

    def __init__(self, rgba: np.ndarray, scales: tuple[float, float], degrees: tuple[float, float]):
        """Computes what the search needs of the canvas.

        Args:
          rgba: the canvas, uint8 `[h, w, 4]`, not transparent everywhere.
          scales: lowest and highest that pictures may show the canvas at; (1, 1) where it is as it is.
          degrees: likewise, of rotation.
        """
        layer = canvas_features.premultiplied(rgba)
        self._size = layer.shape[:2]
        self._spanned_by = canvas_features.spanning(layer)
        self._periods = canvas_features.periods(layer)
        # Of a huge canvas the full resolution takes too much memory: a repeat of the right one will have to do.
        is_huge = layer.shape[0] * layer.shape[1] > _MOST_TELLING
        self._is_any_repeat_right = is_huge or canvas_features.repeats_exactly(layer, self._periods)
        # Variables, because a SavedModel holds each of them once, and constants in every function that reads them.
        self._layers = {
            level: tf.Variable(canvas_features.shrunk(layer, level), trainable=False, name=f"canvas_{level}")
            for level in _LEVELS
        }
        self._scales, self._angles = search.scales_to_try(*scales), search.angles_to_try(*degrees)
        self._refined, self._as_it_is = once(self._refined), once(self._as_it_is)
        self._scaled, self._nearer = once(self._scaled), once(self._nearer)
        self.first, self.next = once(self.first), once(self.next)
        self._is_searched = len(self._scales) * len(self._angles) > 1

    @property
    def layer(self) -> tf.Tensor:
        """The premultiplied canvas, float32 `[h, w, 4]`."""
        return tf.convert_to_tensor(self._layers[1])

    @property
    def variables(self) -> list[tf.Variable]:
        """That its functions read."""
        return list(self._layers.values())

    def _features(self, level: int) -> canvas_features.CanvasFeatures:
        return canvas_features.canvas_features(self._layers[level], self._spanned_by)

    def _counts(self, found: Found, corner: tf.Tensor, size: tf.Tensor, level: int) -> tf.Tensor:
        """float32 `[H, W]` of a window, at `1 / level` of the resolution: 0 where a canvas was located, else 1."""

        def without(index: tf.Tensor, counts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            placement = found.placement(index)
            placement = placement._replace(corner=placement.corner / level).seen_from(corner)
            alpha = over_picture(self._layers[level], placement, size)[None, ..., 3:]
            near = tf.nn.max_pool2d(alpha, 2 * _MARGIN + 1, 1, "SAME")[0, ..., 0]
            return index + 1, tf.where(near > 0.0, 0.0, counts)

        return tf.while_loop(lambda index, _: index < found.count, without, (0, tf.ones(size)))[1]

    def _refined(self, picture: tf.Tensor, start: Placement, found: Found, rigid: bool, steps: int) -> Match:
        corner, size = window(start, self._size, tf.shape(picture)[:2])
        counts = self._counts(found, corner, size, 1)
        match = refine(cropped(picture, corner, size), self.layer, start.seen_from(corner), rigid, counts, steps)
        placement = match.placement.seen_from(-corner)
        first, last = visible(placement, self._size, tf.shape(picture)[:2])
        least = tf.maximum(_LEAST_SEEN, _LEAST_SHARE * placement.scale * tf.constant(self._size, tf.float32))
        is_mark = (match.opacity >= _LEAST_OPACITY) & tf.reduce_all(last - first >= least)
        return match._replace(placement=placement, score=tf.where(is_mark, match.score, 0.0))

    def _as_it_is(self, picture: tf.Tensor, found: Found, most_points: tf.Tensor) -> Match:
        """Where the canvas lies unscaled: to a pixel of the resolution that can be searched, then refined."""
        points = tf.reduce_prod(tf.cast(tf.shape(picture)[:2] + tf.constant(self._size), tf.float32))

        def at(level: int) -> tf.Tensor:
            shrunk = _shrunk(picture, level)
            size = tf.shape(shrunk)[:2]
            fields = locate.picture_fields(shrunk, level, self._counts(found, tf.zeros([2]), size, level))
            features = self._features(level)
            return locate.best_offset(locate.score_map(fields, features), size, features)[1] * level

        is_too_large = [points / level**2 > tf.cast(most_points, tf.float32) for level in _LEVELS[:-1]]
        branches = [lambda level=level: at(level) for level in _LEVELS]
        corner = tf.switch_case(tf.reduce_sum(tf.cast(is_too_large, tf.int32)), branches)
        return self._refined(picture, at_corner(corner), found, rigid=True, steps=2)

    def _right_repeat(self, picture: tf.Tensor, match: Match) -> Match:
        """The match, or the one at another repeat of the canvas, which only the full resolution can tell apart."""
        corner, size = window(match.placement, self._size, tf.shape(picture)[:2], _TELLING)
        features, inside = self._features(1), match.placement.seen_from(corner).corner
        nested = tf.reduce_all((inside <= 0.0) & (inside + self._size >= tf.cast(size, tf.float32)))
        fields = locate.picture_fields(cropped(picture, corner, size))
        scores = locate.score_map(fields, features, locate.spectra(features, size, nested))
        there = corner + locate.best_offset(scores, size, features, nested)[1]
        return _surer(match, self._refined(picture, at_corner(there), Found.nothing(), rigid=True, steps=2))

    def _nearer(self, picture: tf.Tensor, start: Placement, found: Found | None) -> tuple[tf.Tensor, Placement]:
        """The likeliest scale and angle around those of the coarse search, and its score."""
        extent = start.scale * tf.constant(self._size, tf.float32)
        margin = _MISPLACED * start.scale
        side = tf.minimum(_SEARCHED * tf.maximum(1.0, start.scale), extent + 2.0 * margin)
        corner, size = window(start, self._size, tf.shape(picture)[:2], tf.cast(side, tf.int32))
        seen = cropped(picture, corner, size)
        last = start.corner + extent - tf.cast(tf.shape(picture)[:2], tf.float32)
        is_inside = (start.corner > -margin) & (last < margin)
        counts = None if found is None else self._counts(found, corner, size, 1)
        features, around = self._features(search.FINE), search.around(start.scale, start.rotation)
        scores, placements = search.search(
            seen, features, search.FINE, self._size, *around, best=1, counts=counts, is_inside=is_inside
        )
        return scores[0], Placement(*(part[0] for part in placements)).seen_from(-corner)

    def _scaled(
        self, picture: tf.Tensor, scales: tf.Tensor, angles: tf.Tensor, candidates: int, found: Found | None = None
    ) -> Match:
        """The surest of the likeliest scales and angles."""
        size = tf.shape(picture)[:2] // search.COARSE
        counts = None if found is None else self._counts(found, tf.zeros([2]), size, search.COARSE)
        features, picture_there = self._features(search.COARSE), _shrunk(picture, _SHRUNK)
        _, starts = search.search(
            picture_there, features, search.COARSE, self._size, scales, angles, candidates, counts, _SHRUNK
        )

        def goes_on(index: tf.Tensor, match: Match) -> tf.Tensor:
            return (index < candidates) & ~_is_certain(match)

        def with_next(index: tf.Tensor, match: Match) -> tuple[tf.Tensor, Match]:
            score, start = self._nearer(picture, Placement(*(part[index] for part in starts)), found)
            refined = tf.cond(
                score < _FAINT,
                lambda: match,
                lambda: self._refined(picture, start, found or Found.nothing(), rigid=False, steps=_STEPS),
            )
            return index + 1, _surer(match, refined)

        nowhere = Match(Placement(tf.zeros([2]), tf.ones([]), tf.zeros([])), *[tf.zeros([])] * 3)
        return tf.while_loop(goes_on, with_next, (0, nowhere))[1]

    def _widest(self, picture: tf.Tensor, match: Match) -> Match:
        """The match, or the one a period away, as good where it was searched for, that covers most of the picture."""
        placement = match.placement
        corners = placement.picture_points(tf.constant(self._periods))
        first, last = visible(placement._replace(corner=corners), self._size, tf.shape(picture)[:2])
        widest = tf.argmax(tf.reduce_prod(last - first, axis=1))  # the first, itself, where others are no better

        def moved() -> Match:
            there = placement._replace(corner=corners[widest])
            other = self._refined(picture, there, Found.nothing(), rigid=False, steps=_STEPS)
            return tf.cond(_is_certain(other), lambda: other, lambda: match)

        return tf.cond(widest > 0, moved, lambda: match)

    def first(self, picture: tf.Tensor) -> Match:
        """Finds the canvas, as it is or else scaled and turned.

        Args:
          picture: uint8 `[H, W, 3]`.

        Returns:
          The likeliest match; it is none if its score is below `FOUND`.
        """
        nothing = Found.nothing()

        def or_else(match: Match, way: Callable[[], Match]) -> Match:
            return tf.cond(_is_certain(match), lambda: match, lambda: _surer(match, way()))

        match = self._as_it_is(picture, nothing, tf.constant(_FEW_POINTS))
        if not self._is_any_repeat_right:
            match = tf.cond(match.score < FOUND, lambda: match, lambda: self._right_repeat(picture, match))
        if self._is_searched:
            match = or_else(match, lambda: self._scaled(picture, self._scales, self._angles, _CANDIDATES))
            is_scaled = (match.placement.scale != 1.0) | (match.placement.rotation != 0.0)
            match = tf.cond(is_scaled, lambda: self._widest(picture, match), lambda: match)
        return or_else(match, lambda: self._as_it_is(picture, nothing, tf.constant(_MOST_POINTS)))

    def most(self, first: Match, picture: tf.Tensor) -> tf.Tensor:
        """How often it may lie over a picture, int32 scalar: a field once, a stamp up to `MOST` times."""
        area = tf.square(first.placement.scale) * (self._size[0] * self._size[1])
        return tf.where(area < tf.cast(tf.reduce_prod(tf.shape(picture)[:2]), tf.float32), MOST, 1)

    def next(self, picture: tf.Tensor, first: Match, found: Found) -> Match:
        """Finds a stamp once more, at the scale and angle of the first one, where it was not found yet."""
        placement = first.placement
        # Where one copy was not to be missed, others need no closer look.
        most_points = tf.where(_is_certain(first), _FEW_POINTS, _MOST_POINTS)
        if not self._is_searched:
            return self._as_it_is(picture, found, most_points)
        return tf.cond(
            (placement.scale == 1.0) & (placement.rotation == 0.0),
            lambda: self._as_it_is(picture, found, most_points),
            lambda: self._scaled(picture, placement.scale[None], placement.rotation[None], 1, found),
        )
