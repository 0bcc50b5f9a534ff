"""Restores images under a known canvas: locates it, fits its opacity, inverts the blend and repairs what is left.

    restore = KeyedRestorer(rgba)
    restore(pictures)["restored"]

An image without the canvas comes back untouched, and so does every pixel that the canvas does not cover.
"""

from __future__ import annotations

import itertools
from typing import Callable, NamedTuple

import numpy as np
import tensorflow as tf

from training.data.reflection import mirrored_indices
from training.keyed.blend import transmission
from training.keyed.block_matching import MATCH, Match, window
from training.keyed.finder import FOUND, Finder, Found, cropped, in_0_to_1
from training.keyed.fit import FIT, Fit, fit, gained
from training.keyed.lesson import repair_input
from training.keyed.placement import PLACEMENT, Placement, laid, over_picture
from training.keyed.quantised import was_saved_as_jpeg
from training.keyed.traced import BOOL, PIXELS, once
from training.run.exportable import Exportable

# Scales and degrees of rotation to search if the unchanged canvas is not found.
SCALES, DEGREES = (0.5, 2.0), (-3.0, 3.0)
_TILE = 1024  # pixels per side
_AROUND = 64  # pixels of context around what is to be repaired: less than the network's halo, but enough
# Alpha above which pixels are restored. A little above the 0.02 from which a pixel counts as covered, because the
# opacity is not exact and uncovered pixels must stay as they are.
_COVERED = 0.0205
# Transmission below which even an exact inversion is repaired: the amplified rounding error is as large as repair's.
_SHOWS_TOO_LITTLE = 0.06
_FAINTEST = 0.16  # fitted opacity at or below which a match is a false positive; the fit's floor is 0.15


class _Layer(NamedTuple):
    """A canvas over an image: where it lies, how it was laid on, and whether inversion is exact, needing no repair."""

    placement: Placement
    fit: Fit
    is_exact: tf.Tensor


def _bounds(mask: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the first row and column that hold a true value of bool `[H, W]`, and one past the last: int32 `[2]`."""
    lines = [tf.cast(tf.where(tf.reduce_any(mask, axis=axis))[:, 0], tf.int32) for axis in (1, 0)]
    return tf.stack([line[0] for line in lines]), tf.stack([line[-1] + 1 for line in lines])


def _inverted(source: tf.Tensor) -> tf.Tensor:
    return source[..., :3]


class KeyedRestorer:
    """Restores images that carry one known canvas."""

    def __init__(
        self,
        rgba: np.ndarray,
        repair: Exportable | None = None,
        scales: tuple[float, float] = SCALES,
        degrees: tuple[float, float] = DEGREES,
    ):
        """Computes what the search needs to know about the canvas.

        Args:
          rgba: the canvas, uint8 `[h, w, 4]`, not transparent everywhere.
          repair: a repair network; without one, the inverted image is the result.
          scales: lowest and highest scale of the canvas in an image; (1, 1) if it is never scaled.
          degrees: lowest and highest rotation of the canvas in an image; (0, 0) if it is never rotated.
        """
        self._finder = Finder(rgba, scales, degrees)
        self._repair: Callable[[tf.Tensor], tf.Tensor] = repair.network if repair else _inverted
        self._stride = repair.stride if repair else 1
        # Whole strides, so that tiles lie on the same grid as the whole image.
        self._halo = -(-repair.halo // repair.stride) * repair.stride if repair else 0
        self._around = min(self._halo, _AROUND)
        self._fit = once(self._fit, PIXELS, MATCH)
        self._without = once(self._without, PIXELS, _Layer(PLACEMENT, FIT, BOOL))
        # Inlined, because a tf.Session, which TF Serving uses, cannot call a function from within two nested loops.
        self._tile = tf.function(self._tile, autograph=False)
        self.variables = self._finder.variables + (repair.network.variables if repair else [])

    def _fit(self, pixels: tf.Tensor, match: Match) -> _Layer:
        """Fits in a window: it has enough edges, and all of a large image would take too much memory."""
        placement = match.placement
        corner, size = window(placement, self._finder.size, tf.shape(pixels)[:2])
        seen = cropped(pixels, corner, size)
        layer = over_picture(self._finder.layer, placement.seen_from(corner), size, is_sharp=True)
        # Between pixels, our interpolation differs a little from the one the watermark was laid with.
        is_whole = (placement.scale == 1.0) & (placement.rotation == 0.0)
        is_whole &= tf.reduce_all(tf.equal(placement.corner, tf.round(placement.corner)))
        is_exact = is_whole & ~was_saved_as_jpeg(seen, match.opacity * layer[..., 3], corner)
        fitted = fit(seen, layer, match.opacity, is_exact)
        return _Layer(placement, fitted, is_exact)

    def _tile(self, pixels: tf.Tensor, first: tf.Tensor, end_of_region: tf.Tensor, over: _Layer) -> tf.Tensor:
        """Returns one tile without the canvas, uint8 `[h, w, 3]`; `first` is its top left pixel."""
        limit = tf.shape(pixels)[:2]
        last = tf.minimum(first + _TILE, end_of_region)
        start, end = tf.maximum(first - self._halo, 0), tf.minimum(last + self._halo, limit)
        placed = laid(self._finder.layer, over.placement.seen_from(start), end - start, is_sharp=True)
        layer = gained(placed, over.fit.gain)
        inside, size = first - start, last - first

        def own(x: tf.Tensor) -> tf.Tensor:
            return x[inside[0] : inside[0] + size[0], inside[1] : inside[1] + size[1]]

        seen, alpha = pixels[start[0] : end[0], start[1] : end[1]], over.fit.opacity * layer[..., 3:]
        is_covered = own(alpha > _COVERED)
        is_uncertain = ~over.is_exact | (own(transmission(alpha, 1.0)) < _SHOWS_TOO_LITTLE)

        def repaired(source: tf.Tensor, needed: tf.Tensor) -> tf.Tensor:
            """Runs the repair network around the `needed` pixels alone: a stamp is a small part of most tiles."""
            first_needed, last_needed = _bounds(needed)
            from_ = tf.maximum(first_needed + inside - self._around, 0) // self._stride * self._stride
            to = tf.minimum(last_needed + inside + self._around, end - start)
            for axis in (0, 1):
                length = to[axis] - from_[axis]
                index = mirrored_indices(0, length + -length % self._stride, length)
                source = tf.gather(source, from_[axis] + index, axis=axis)
            network = self._repair(source[None])[0][: to[0] - from_[0], : to[1] - from_[1]]
            around = tf.stack([from_, end - start - to], axis=1)
            return own(tf.pad(network, tf.concat([around, [[0, 0]]], axis=0)))

        def restored() -> tf.Tensor:
            source = repair_input(in_0_to_1(seen), layer, over.fit.opacity)
            inverted = own(source[..., :3])
            needed = (is_covered & is_uncertain)[..., 0]
            result = tf.cond(
                tf.reduce_any(needed),
                lambda: tf.where(is_uncertain, repaired(source, needed), inverted),
                lambda: inverted,
            )
            result = tf.cast(tf.round(tf.clip_by_value(result, 0.0, 1.0) * 255.0), tf.uint8)
            return tf.where(is_covered, result, own(seen))

        return tf.cond(tf.reduce_any(is_covered), restored, lambda: own(seen))

    def _region(self, over: _Layer, picture_size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the region that a canvas covers: its first pixel and the one after its last, int32 `[2]` each."""
        extent = tf.constant(tuple(self._finder.layer.shape[:2]), tf.float32)
        corners = over.placement.picture_points(tf.constant(list(itertools.product((0.0, 1.0), repeat=2))) * extent)
        limit = tf.cast(picture_size, tf.float32)
        first, last = tf.floor(tf.reduce_min(corners, axis=0)) - 2.0, tf.math.ceil(tf.reduce_max(corners, axis=0)) + 2.0
        first = tf.cast(tf.clip_by_value(first, 0.0, limit - 1.0), tf.int32) // self._stride * self._stride
        return first, tf.maximum(first + 1, tf.cast(tf.minimum(last, limit), tf.int32))

    def _without(self, pixels: tf.Tensor, over: _Layer) -> tf.Tensor:
        """Removes a located canvas tile by tile, so that memory does not grow with the image."""
        first, last = self._region(over, tf.shape(pixels)[:2])
        rows, columns = tf.unstack(-(-(last - first) // _TILE))

        def joined(count: tf.Tensor, part: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
            parts = tf.TensorArray(tf.uint8, size=count, infer_shape=False, element_shape=[None, None, 3])
            _, parts = tf.while_loop(
                lambda index, _: index < count,
                lambda index, parts: (index + 1, parts.write(index, part(index))),
                (0, parts),
                parallel_iterations=1,
            )
            return parts.concat()

        def strip(row: tf.Tensor) -> tf.Tensor:
            def upright(column: tf.Tensor) -> tf.Tensor:  # parts are joined along the first axis
                corner = first + tf.stack([row, column]) * _TILE
                return tf.transpose(self._tile(pixels, corner, last, over), [1, 0, 2])

            return tf.transpose(joined(columns, upright), [1, 0, 2])

        beside = pixels[first[0] : last[0]]
        restored = tf.concat([beside[:, : first[1]], joined(rows, strip), beside[:, last[1] :]], axis=1)
        return tf.ensure_shape(tf.concat([pixels[: first[0]], restored, pixels[last[0] :]], axis=0), pixels.shape)

    def _restore_one(self, pixels: tf.Tensor) -> tuple[tf.Tensor, ...]:
        first = self._finder.first(pixels)
        most = self._finder.most(first, pixels)

        def take(match: Match, found: Found, restored: tf.Tensor, opacity: tf.Tensor) -> tuple:
            layer = self._fit(pixels, match)

            def taken() -> tuple:
                now = found.and_(match.placement)
                following = tf.cond(
                    now.count < most,
                    lambda: self._finder.next(pixels, first, now),
                    lambda: match._replace(score=tf.zeros([])),
                )
                of_first = tf.where(found.count == 0, layer.fit.opacity, opacity)
                return following, now, tf.ensure_shape(self._without(restored, layer), pixels.shape), of_first

            # Edges match, but the fitted opacity is at its floor: a false positive.
            is_mark = layer.fit.opacity > _FAINTEST
            return tf.cond(is_mark, taken, lambda: (match._replace(score=tf.zeros([])), found, restored, opacity))

        start = (first, Found.nothing(), pixels, tf.zeros([]))
        _, found, restored, opacity = tf.while_loop(lambda match, *_: match.score >= FOUND, take, start)
        score = tf.where((found.count == 0) & (first.score >= FOUND), 0.0, first.score)
        transform = tf.concat([first.placement.corner, [first.placement.scale, first.placement.rotation]], axis=0)
        return restored, found.count > 0, score, transform, opacity

    @tf.autograph.experimental.do_not_convert  # autograph takes half the tracing time, and is not needed
    def __call__(self, pictures: tf.Tensor) -> dict[str, tf.Tensor]:
        """Restores images.

        Args:
          pictures: uint8 `[N, H, W, 3]`.

        Returns:
          restored: uint8 `[N, H, W, 3]`.
          found: bool `[N]`, whether the canvas was found; if not, `restored` is the input.
          score: float32 `[N]`, how sure the match is.
          transform: float32 `[N, 4]`, (dy, dx, scale, rotation in radians) of the canvas, or of the first copy found.
          opacity: float32 `[N]`, of the canvas or the first copy found; 0 if not found.
        """
        one, number = tf.TensorSpec([None, None, 3], tf.uint8), tf.TensorSpec([], tf.float32)
        signature = (one, tf.TensorSpec([], tf.bool), number, tf.TensorSpec([4], tf.float32), number)
        mapped = tf.map_fn(self._restore_one, pictures, fn_output_signature=signature, parallel_iterations=1)
        return dict(zip(("restored", "found", "score", "transform", "opacity"), mapped))
