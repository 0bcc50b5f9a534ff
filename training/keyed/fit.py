"""How opaque a located canvas is: what leaves no trace of the mark in the inverted picture.

At the true opacity t the gradients of the inverted picture y(t) have nothing to do with the mark's. Elsewhere they
contain `(t_true - t) Z`, with `Z = L grad(a / k) - grad(a c / k)`, k the transmission and L the low-pass of y: the
derivative of y by t, without the part that the picture's own gradients have in it. So t is the root of

    sum w Z . grad(y(t)) = 0

found by Newton's steps, w being small where the picture has strong edges of its own, as in iteratively reweighted
least squares. Minimizing the gradients' size instead would prefer too low an opacity, because inversion amplifies all
of them; leaving the picture's part out of Z makes it an instrument in the statistical sense, and the root unbiased.

JPEG weakens a mark's finest edges, and gradients of pixel against pixel then give an opacity that is too low. Blurred a
little they do not, but are less precise. Both are computed, and the blurred one is taken where they contradict.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from training.keyed.blend import invert, transmission
from training.keyed.locate import blur

_LOWEST, _HIGHEST = 0.15, 1.02
_NOISE = 1.5 / 255.0  # of a picture's gradients, from rounding
_LOW_PASS = 6.0
_STEPS, _BLURRED_STEPS = 8, 2
_CONVERGED = 1e-4
_CONTRADICTION = 0.008


def _low_pass(picture: tf.Tensor, layer: tf.Tensor, opacity: tf.Tensor) -> tf.Tensor:
    """What lies beneath the mark, without its details: float32 `[H, W, 3]`."""
    trust = tf.square(transmission(layer[..., 3:], opacity))
    inverted = tf.clip_by_value(invert(picture, layer, opacity), 0.0, 1.0)
    blurred = blur(tf.concat([inverted * trust, trust], axis=-1)[None], _LOW_PASS)[0]
    return blurred[..., :3] / blurred[..., 3:]


class _Seen(NamedTuple):
    """Pixels and their neighbours to the right and below: float32 `[..., 3]`, of layers `[..., 4]`."""

    low_pass: tf.Tensor
    picture: tf.Tensor
    layer: tf.Tensor
    picture_right: tf.Tensor
    layer_right: tf.Tensor
    picture_below: tf.Tensor
    layer_below: tf.Tensor


def _seen(picture: tf.Tensor, layer: tf.Tensor, opacity: tf.Tensor) -> _Seen:
    at, right, below = np.s_[:-1, :-1], np.s_[:-1, 1:], np.s_[1:, :-1]
    low_pass = _low_pass(picture, layer, opacity)
    return _Seen(low_pass[at], *(x[part] for part in (at, right, below) for x in (picture, layer)))


def _where_marked(seen: _Seen) -> _Seen:
    """The pixels at which the mark has an edge, as a list: all others have nothing to say."""
    change = tf.abs(seen.layer_right - seen.layer) + tf.abs(seen.layer_below - seen.layer)
    index = tf.where(tf.reduce_max(change, axis=-1) > 0.0)
    return _Seen(*(tf.gather_nd(x, index) for x in seen))


def _edges_and_found(seen: _Seen, opacity: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Z, and the inverted picture's gradients, `[..., 6]`; times the transmission, so that rounding counts the same."""

    def parts(picture: tf.Tensor, layer: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return layer / transmission(layer[..., 3:], opacity), invert(picture, layer, opacity)

    layer, inverted = parts(seen.picture, seen.layer)
    edges, found = [], []
    for pair in ((seen.picture_right, seen.layer_right), (seen.picture_below, seen.layer_below)):
        layer_there, inverted_there = parts(*pair)
        of_layer = layer_there - layer
        edges.append(seen.low_pass * of_layer[..., 3:] - of_layer[..., :3])
        found.append(inverted_there - inverted)
    shows = transmission(seen.layer[..., 3:], opacity)
    return tf.concat(edges, axis=-1) * shows, tf.concat(found, axis=-1) * shows


def _blurred(x: tf.Tensor) -> tf.Tensor:
    """Box upon box, a standard deviation of 1.2 pixels."""
    return tf.nn.avg_pool2d(tf.nn.avg_pool2d(x[None], 3, 1, "SAME"), 3, 1, "SAME")[0]


def _root(seen: _Seen, start: tf.Tensor, steps: int, is_blurred: bool) -> tf.Tensor:
    def step(opacity: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        edges, found = _edges_and_found(seen, opacity)
        if is_blurred:
            edges, found = _blurred(edges), _blurred(found)
        weight = tf.math.rsqrt(tf.square(found) + _NOISE**2)
        change = tf.reduce_sum(weight * edges * found) / (tf.reduce_sum(weight * tf.square(edges)) + 1e-9)
        return tf.clip_by_value(opacity - change, _LOWEST, _HIGHEST), change

    opacity, _ = tf.while_loop(
        lambda _, change: tf.abs(change) > _CONVERGED, step, (start, tf.ones([])), maximum_iterations=steps
    )
    return opacity


def fit(picture: tf.Tensor, layer: tf.Tensor, start: tf.Tensor | float = 0.9) -> tf.Tensor:
    """Fits the opacity of a located canvas.

    Args:
      picture: float32 `[H, W, 3]` in 0..1.
      layer: float32 `[H, W, 4]`, premultiplied colour and alpha where the canvas lies over it.
      start: float32 scalar, about what it is.

    Returns:
      float32 scalar, 0.15 to 1.
    """
    start = tf.clip_by_value(start, _LOWEST, _HIGHEST)
    seen = _seen(picture, layer, start)
    fine = _root(_where_marked(seen), start, _STEPS, is_blurred=False)
    coarse = _root(seen, fine, _BLURRED_STEPS, is_blurred=True)
    return tf.minimum(1.0, tf.where(tf.abs(fine - coarse) > _CONTRADICTION, coarse, fine))
