"""Finds a canvas in an image: unchanged, scaled or rotated, once or several times."""

from __future__ import annotations

from typing import Callable, NamedTuple

import numpy as np
import tensorflow as tf

from training.keyed import canvas_features, locate, search
from training.keyed.block_matching import MATCH, Match, refine, visible, window
from training.keyed.placement import PLACEMENT, Placement, at_corner, over_picture
from training.keyed.traced import BOOL, INTEGER, LAYER, NUMBER, NUMBERS, PICTURE, PIXELS, PLANE, once

# Score from which a canvas counts as found. The highest score in an image without it is about 10, seldom 20. A few are
# 30 to 50, on a strip along the image's border or on edges that agree on no opacity; the rules below, and one on the
# fitted opacity, reject those.
FOUND = 30.0
# Minimum opacity of a match, and minimum height and width of the visible canvas, in pixels and as a share of its own.
_LEAST_OPACITY, _LEAST_SEEN, _LEAST_SHARE = 0.15, 8.0, 0.05
# A match with a lower score or a lower consensus may be at a wrong scale.
_CERTAIN, _CONSENSUS = 80.0, 0.85
MOST = 16  # copies of a stamp per image
_LEVELS = (1, 2, 4, 8)
_SEARCHED = 320  # pixels per side, of the canvas or of the image, in the window of the fine search
_SHRUNK = 2  # factor by which an image is shrunk once, for all scales of the coarse search
# FFT points above which a search halves its resolution: in the first pass, and in the closer look.
_FEW_POINTS, _MOST_POINTS = 500_000, 1_800_000
# Largest error of the coarse search, in canvas pixels.
_MISPLACED = 16.0
# Pixels around a located stamp that later searches ignore.
_MARGIN = 2
# Telling a canvas's repeats apart: pixels per side of the window, and pixels in all of the largest canvas to try it on.
_TELLING, _MOST_TELLING = 256, 4_000_000
# Scale search: candidates to refine, minimum score worth refining, maximum refinement steps.
_CANDIDATES, _FAINT, _STEPS = 12, 8.0, 5


def in_0_to_1(pixels: tf.Tensor) -> tf.Tensor:
    """Converts uint8 to float32 in 0..1. Crop a large image first: all of it as float32 takes too much memory."""
    return tf.cast(pixels, tf.float32) / 255.0


def cropped(pixels: tf.Tensor, corner: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Crops uint8 `[H, W, 3]` to float32 `[h, w, 3]` in 0..1; the window's corner and size are int32 `[2]`."""
    return in_0_to_1(tf.slice(pixels, tf.concat([corner, [0]], 0), tf.concat([size, [3]], 0)))


def _shrunk(pixels: tf.Tensor, by: tf.Tensor | int) -> tf.Tensor:
    """Averages blocks of `by` x `by` pixels, uint8 `[H, W, 3]` to float32 in 0..1; cuts off incomplete blocks."""
    size = tf.maximum(1, tf.shape(pixels)[:2] // by)  # a side may be shorter than `by`
    whole = pixels[: size[0] * by, : size[1] * by]
    return tf.raw_ops.ResizeArea(images=whole[None], size=size)[0] / 255.0


class Found(NamedTuple):
    """The placements located so far.

    Attributes:
      transforms: float32 `[MOST, 4]`, rows of (dy, dx, scale, rotation).
      count: int32 scalar, number of rows in use.
    """

    transforms: tf.Tensor
    count: tf.Tensor

    @classmethod
    def nothing(cls) -> Found:
        """Returns an empty list, for before anything is located."""
        return cls(tf.zeros([MOST, 4]), tf.constant(0))

    def placement(self, index: tf.Tensor) -> Placement:
        """Returns one placement."""
        row = self.transforms[index]
        return Placement(row[:2], row[2], row[3])

    def and_(self, placement: Placement) -> Found:
        """Returns these placements and one more."""
        row = tf.concat([placement.corner, [placement.scale, placement.rotation]], axis=0)
        return Found(tf.tensor_scatter_nd_update(self.transforms, [[self.count]], row[None]), self.count + 1)


def _surer(one: Match, other: Match) -> Match:
    return tf.cond(one.score >= other.score, lambda: one, lambda: other)


def _is_certain(match: Match) -> tf.Tensor:
    return (match.score >= _CERTAIN) & (match.consensus >= _CONSENSUS)


FOUND_SO_FAR = Found(tf.TensorSpec([MOST, 4], tf.float32), INTEGER)


def nowhere() -> Match:
    """Returns a match of score 0."""
    return Match(Placement(tf.zeros([2]), tf.ones([]), tf.zeros([])), *[tf.zeros([])] * 3)


class Finder:
    """Finds one canvas.

    Attributes:
      size: its height and width.
    """

    def __init__(self, rgba: np.ndarray, scales: tuple[float, float], degrees: tuple[float, float]):
        """Computes what the search needs to know about the canvas.

        Args:
          rgba: the canvas, uint8 `[h, w, 4]`, not transparent everywhere.
          scales: lowest and highest scale of the canvas in an image; (1, 1) if it is never scaled.
          degrees: lowest and highest rotation of the canvas in an image; (0, 0) if it is never rotated.
        """
        layer = canvas_features.premultiplied(rgba)
        self.size = layer.shape[:2]
        self._spanned_by = canvas_features.spanning(layer)
        self._periods = canvas_features.periods(layer)
        # A huge canvas takes too much memory at full resolution, so any of its repeats will have to do.
        is_huge = layer.shape[0] * layer.shape[1] > _MOST_TELLING
        self._is_any_repeat_right = is_huge or canvas_features.repeats_exactly(layer, self._periods)
        # Variables, because a SavedModel stores a variable once, but a constant in every function that reads it.
        self._layers = {
            level: tf.Variable(canvas_features.shrunk(layer, level), trainable=False, name=f"canvas_{level}")
            for level in _LEVELS
        }
        self._scales, self._angles = search.scales_to_try(*scales), search.angles_to_try(*degrees)
        self._refined = once(self._refined, PIXELS, PLACEMENT, FOUND_SO_FAR, BOOL, INTEGER)
        self._as_it_is = once(self._as_it_is, PIXELS, FOUND_SO_FAR, INTEGER)
        self._scaled = once(self._scaled, PIXELS, NUMBERS, NUMBERS, INTEGER, FOUND_SO_FAR)
        of_axes = tf.TensorSpec([2], tf.bool)
        self._searched = once(self._searched, PICTURE, LAYER, NUMBER, NUMBERS, NUMBERS, INTEGER, PLANE, NUMBER, of_axes)
        # Inlined into the loops that call them, these two fail in a tf.Session, which TF Serving is.
        self._nearer = once(self._nearer, PIXELS, PLACEMENT, FOUND_SO_FAR)
        self.first = once(self.first, PIXELS)
        self.next = once(self.next, PIXELS, MATCH, FOUND_SO_FAR)
        self._is_searched = len(self._scales) * len(self._angles) > 1

    @property
    def layer(self) -> tf.Tensor:
        """The premultiplied canvas, float32 `[h, w, 4]`."""
        return tf.convert_to_tensor(self._layers[1])

    @property
    def variables(self) -> list[tf.Variable]:
        """The variables that its functions read."""
        return list(self._layers.values())

    def _features(self, level: int) -> canvas_features.CanvasFeatures:
        return canvas_features.canvas_features(self._layers[level], self._spanned_by)

    def _counts(
        self, found: Found, corner: tf.Tensor, size: tf.Tensor, layer: tf.Tensor, level: tf.Tensor | float
    ) -> tf.Tensor:
        """Returns float32 `[H, W]` for a window: 0 where a canvas was located, else 1.

        Both the layer and the window are at `1 / level` of the full resolution.
        """

        def without(index: tf.Tensor, counts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            placement = found.placement(index)
            placement = placement._replace(corner=placement.corner / level).seen_from(corner)
            alpha = over_picture(layer, placement, size)[None, ..., 3:]
            near = tf.nn.max_pool2d(alpha, 2 * _MARGIN + 1, 1, "SAME")[0, ..., 0]
            return index + 1, tf.where(near > 0.0, 0.0, counts)

        return tf.while_loop(lambda index, _: index < found.count, without, (0, tf.ones(size)))[1]

    def _refined(
        self, picture: tf.Tensor, start: Placement, found: Found, rigid: tf.Tensor | bool, steps: tf.Tensor | int
    ) -> Match:
        corner, size = window(start, self.size, tf.shape(picture)[:2])
        counts = self._counts(found, corner, size, self._layers[1], 1.0)
        match = refine(cropped(picture, corner, size), self.layer, start.seen_from(corner), rigid, counts, steps)
        placement = match.placement.seen_from(-corner)
        first, last = visible(placement, self.size, tf.shape(picture)[:2])
        least = tf.maximum(_LEAST_SEEN, _LEAST_SHARE * placement.scale * tf.constant(self.size, tf.float32))
        is_mark = (match.opacity >= _LEAST_OPACITY) & tf.reduce_all(last - first >= least)
        return match._replace(placement=placement, score=tf.where(is_mark, match.score, 0.0))

    def _as_it_is(self, picture: tf.Tensor, found: Found, most_points: tf.Tensor) -> Match:
        """Finds the unscaled canvas at the highest affordable resolution, then refines its place."""
        points = tf.reduce_prod(tf.cast(tf.shape(picture)[:2] + tf.constant(self.size), tf.float32))
        is_too_large = [points / level**2 > tf.cast(most_points, tf.float32) for level in _LEVELS[:-1]]
        number = tf.reduce_sum(tf.cast(is_too_large, tf.int32))
        layer = tf.switch_case(number, [lambda level=level: self._layers[level].read_value() for level in _LEVELS])
        layer.set_shape([None, None, 4])
        level = tf.gather(_LEVELS, number)
        shrunk, shrunk_by = _shrunk(picture, level), tf.cast(level, tf.float32)
        size = tf.shape(shrunk)[:2]
        counts = self._counts(found, tf.zeros([2]), size, layer, shrunk_by)
        features = canvas_features.canvas_features(layer, self._spanned_by)
        fields = locate.picture_fields(shrunk[None], shrunk_by, counts[None])
        _, corners = locate.best_offset(locate.score_map(fields, features), size, features)
        return self._refined(picture, at_corner(corners[0] * level), found, True, 2)

    def _right_repeat(self, picture: tf.Tensor, match: Match) -> Match:
        """Returns the match or a better one at another repeat of the canvas; only full resolution tells them apart."""
        corner, size = window(match.placement, self.size, tf.shape(picture)[:2], _TELLING)
        features, inside = self._features(1), match.placement.seen_from(corner).corner
        nested = tf.reduce_all((inside <= 0.0) & (inside + self.size >= tf.cast(size, tf.float32)))
        fields = locate.picture_fields(cropped(picture, corner, size)[None])
        scores = locate.score_map(fields, features, locate.spectra(features, size, nested))
        there = corner + locate.best_offset(scores, size, features, nested)[1][0]
        return _surer(match, self._refined(picture, at_corner(there), Found.nothing(), True, 2))

    def _nearer(self, picture: tf.Tensor, start: Placement, found: Found) -> tuple[tf.Tensor, Placement]:
        """Searches finely around a coarse result; returns the best score and its placement."""
        extent = start.scale * tf.constant(self.size, tf.float32)
        margin = _MISPLACED * start.scale
        side = tf.minimum(_SEARCHED * tf.maximum(1.0, start.scale), extent + 2.0 * margin)
        corner, size = window(start, self.size, tf.shape(picture)[:2], tf.cast(side, tf.int32))
        seen = cropped(picture, corner, size)
        last = start.corner + extent - tf.cast(tf.shape(picture)[:2], tf.float32)
        is_inside = (start.corner > -margin) & (last < margin)
        counts = self._counts(found, corner, size, self._layers[1], 1.0)
        scales, angles = search.around(start.scale, start.rotation)
        scores, placements = self._search(seen, search.FINE, scales, angles, 1, counts, 1.0, is_inside)
        return scores[0], Placement(*(part[0] for part in placements)).seen_from(-corner)

    def _search(
        self,
        picture: tf.Tensor,
        level: int,
        scales: tf.Tensor,
        angles: tf.Tensor,
        best: tf.Tensor | int,
        counts: tf.Tensor,
        shrunk_by: float,
        is_inside: tf.Tensor,
    ) -> tuple[tf.Tensor, Placement]:
        layer = self._layers[level].read_value()
        rows = self._searched(picture, layer, float(level), scales, angles, best, counts, shrunk_by, is_inside)
        return rows[:, 0], Placement(rows[:, 1:3], rows[:, 3], rows[:, 4])

    def _searched(
        self,
        picture: tf.Tensor,
        layer: tf.Tensor,
        level: tf.Tensor,
        scales: tf.Tensor,
        angles: tf.Tensor,
        best: tf.Tensor,
        counts: tf.Tensor,
        shrunk_by: tf.Tensor,
        is_inside: tf.Tensor,
    ) -> tf.Tensor:
        """Returns rows of (score, y, x, scale, rotation).

        They are one tensor because TensorFlow optimizes a function anew for a call that leaves an output unused.
        """
        features = canvas_features.canvas_features(layer, self._spanned_by)
        scores, found = search.search(
            picture, features, level, self.size, scales, angles, best, counts, shrunk_by, is_inside
        )
        return tf.concat([tf.stack([scores], 1), found.corner, tf.stack([found.scale, found.rotation], 1)], axis=1)

    def _scaled(
        self, picture: tf.Tensor, scales: tf.Tensor, angles: tf.Tensor, candidates: tf.Tensor, found: Found
    ) -> Match:
        """Searches scales and angles, refines the best candidates and returns the surest match."""
        size = tf.shape(picture)[:2] // search.COARSE
        counts = self._counts(found, tf.zeros([2]), size, self._layers[search.COARSE], float(search.COARSE))
        _, starts = self._search(
            _shrunk(picture, _SHRUNK),
            search.COARSE,
            scales,
            angles,
            candidates,
            counts,
            float(_SHRUNK),
            tf.constant([False, False]),
        )

        def goes_on(index: tf.Tensor, match: Match) -> tf.Tensor:
            return (index < candidates) & ~_is_certain(match)

        def with_next(index: tf.Tensor, match: Match) -> tuple[tf.Tensor, Match]:
            score, start = self._nearer(picture, Placement(*(part[index] for part in starts)), found)
            refined = tf.cond(
                score < _FAINT, lambda: match, lambda: self._refined(picture, start, found, False, _STEPS)
            )
            return index + 1, _surer(match, refined)

        return tf.while_loop(goes_on, with_next, (0, nowhere()))[1]

    def _widest(self, picture: tf.Tensor, match: Match) -> Match:
        """Returns the match, or an equally good one some periods of the canvas away that covers more of the image."""
        placement = match.placement
        corners = placement.picture_points(tf.constant(self._periods))
        first, last = visible(placement._replace(corner=corners), self.size, tf.shape(picture)[:2])
        widest = tf.argmax(tf.reduce_prod(last - first, axis=1))  # ties go to index 0, the match itself
        is_scaled = (placement.scale != 1.0) | (placement.rotation != 0.0)

        def moved() -> Match:
            there = placement._replace(corner=corners[widest])
            other = self._refined(picture, there, Found.nothing(), ~is_scaled, _STEPS)
            # Repeats that are not quite alike differ in their score at full resolution.
            is_as_good = is_scaled | self._is_any_repeat_right | (other.score > match.score)
            return tf.cond(_is_certain(other) & is_as_good, lambda: other, lambda: match)

        return tf.cond(widest > 0, moved, lambda: match)

    def first(self, picture: tf.Tensor) -> Match:
        """Finds the canvas: unchanged, or else scaled and rotated.

        Args:
          picture: uint8 `[H, W, 3]`, any H, W >= 1.

        Returns:
          The likeliest match. The canvas was not found if its score is below `FOUND`.
        """
        # So small a part of a watermark cannot be told from the image's own edges.
        is_too_small = tf.reduce_any(tf.shape(picture)[:2] < int(_LEAST_SEEN))
        return tf.cond(is_too_small, nowhere, lambda: self._likeliest(picture))

    def _likeliest(self, picture: tf.Tensor) -> Match:
        nothing = Found.nothing()

        def or_else(match: Match, way: Callable[[], Match]) -> Match:
            return tf.cond(_is_certain(match), lambda: match, lambda: _surer(match, way()))

        match = self._as_it_is(picture, nothing, _FEW_POINTS)
        if not self._is_any_repeat_right:
            match = tf.cond(match.score < FOUND, lambda: match, lambda: self._right_repeat(picture, match))
        if self._is_searched:
            candidates = min(_CANDIDATES, len(self._scales) * len(self._angles))
            match = or_else(match, lambda: self._scaled(picture, self._scales, self._angles, candidates, nothing))
        match = or_else(match, lambda: self._as_it_is(picture, nothing, _MOST_POINTS))
        return self._widest(picture, match) if len(self._periods) > 1 else match

    def most(self, first: Match, picture: tf.Tensor) -> tf.Tensor:
        """Returns how often the canvas may lie over an image, int32 scalar.

        A canvas of at least the image's area lies there once, a smaller one (a stamp) up to `MOST` times.
        """
        area = tf.square(first.placement.scale) * (self.size[0] * self.size[1])
        return tf.where(area < tf.cast(tf.reduce_prod(tf.shape(picture)[:2]), tf.float32), MOST, 1)

    def next(self, picture: tf.Tensor, first: Match, found: Found) -> Match:
        """Finds one more copy of a stamp, at the first one's scale and angle, outside those already found."""
        placement = first.placement
        # If the first copy was obvious, the others need no closer look.
        most_points = tf.where(_is_certain(first), _FEW_POINTS, _MOST_POINTS)
        if not self._is_searched:
            return self._as_it_is(picture, found, most_points)
        return tf.cond(
            (placement.scale == 1.0) & (placement.rotation == 0.0),
            lambda: self._as_it_is(picture, found, most_points),
            lambda: self._scaled(picture, placement.scale[None], placement.rotation[None], 1, found),
        )
