"""How opaque a located canvas is, and of which colour: what leaves no trace of the mark in the inverted picture.

At the true opacity t the gradients of the inverted picture y(t) have nothing to do with the mark's. Elsewhere they
contain `(t_true - t) Z`, with `Z = L grad(a / k) - grad(a c / k)`, k the transmission and L the low-pass of y: the
derivative of y by t, without the part that the picture's own gradients have in it. So t is the root of

    sum w Z . grad(y(t)) = 0

found by Newton's steps, w being small where the picture has strong edges of its own, as in iteratively reweighted
least squares. Minimizing the gradients' size instead would prefer too low an opacity, because inversion amplifies all
of them; leaving the picture's part out of Z makes it an instrument in the statistical sense, and the root unbiased.

A mark that was laid on with another colour than its file's has a gain a channel as well, with instruments of their own,
`t grad(a c / k)`; all four unknowns are found together. Where the gains seem to be 1 they are not fitted: opacity alone
is more precise.

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
_JOINT_STEPS, _PRIOR, _MOST_GAIN = 4, 1e-5, 3.0
LEAST_GAIN = 0.04  # of a white mark; JPEG alone shifts what is measured by almost so much


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
    """Box upon box, a standard deviation of 1.2 pixels; without the border of two. Pooling takes many times as long."""
    for _ in range(2):
        x = x[:-2] + x[1:-1] + x[2:]
        x = x[:, :-2] + x[:, 1:-1] + x[:, 2:]
    return x / 81.0


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


class Fit(NamedTuple):
    """How a canvas was laid on.

    Attributes:
      opacity: float32 scalar, 0.15 to 1.
      gain: float32 `[3]`, what its red, green and blue were multiplied with.
    """

    opacity: tf.Tensor
    gain: tf.Tensor


def gained(layer: tf.Tensor, gain: tf.Tensor) -> tf.Tensor:
    """A premultiplied layer `[..., 4]` with its colour times a gain `[3]`."""
    return layer * tf.concat([gain, [1.0]], axis=0)


def _jointly(seen: _Seen, start: Fit, steps: int, is_blurred: bool) -> Fit:
    """Fits the gain together with the opacity: the moments are those of four unknowns."""
    fitted = tf.concat([[start.opacity], start.gain], axis=0)
    for _ in range(steps):
        colored = _Seen(*(gained(x, fitted[1:]) if x.shape[-1] == 4 else x for x in seen))
        edges, found = _edges_and_found(colored, fitted[0])
        of_color, _ = _edges_and_found(colored._replace(low_pass=tf.zeros_like(seen.low_pass)), fitted[0])
        if is_blurred:
            edges, found, of_color = _blurred(edges), _blurred(found), _blurred(of_color)
        edges, found, of_color = (tf.reshape(x, [-1, 2, 3]) for x in (edges, found, of_color))
        # With the opacity all channels change, with a gain its own.
        slopes = tf.concat([edges[..., None], tf.linalg.diag(of_color * fitted[0] / fitted[1:])], axis=-1)
        weighted = tf.math.rsqrt(tf.square(found) + _NOISE**2)[..., None] * slopes
        normal = tf.einsum("ndca,ndcb->ab", weighted, slopes)
        normal += (_PRIOR * tf.linalg.trace(normal) + 1e-9) * tf.eye(4)  # a black mark's colour has no gain
        answer = tf.reduce_sum(weighted * found[..., None], axis=[0, 1, 2])
        fitted -= tf.linalg.solve(normal, answer[:, None])[:, 0]
        fitted = tf.clip_by_value(fitted, [_LOWEST] + [1.0 / _MOST_GAIN] * 3, [_HIGHEST] + [_MOST_GAIN] * 3)
    return Fit(fitted[0], fitted[1:])


def fit(picture: tf.Tensor, layer: tf.Tensor, start: tf.Tensor | float = 0.9) -> Fit:
    """Fits the opacity of a located canvas, and the gain of its colour where it clearly has one.

    Args:
      picture: float32 `[H, W, 3]` in 0..1.
      layer: float32 `[H, W, 4]`, premultiplied colour and alpha where the canvas lies over it.
      start: float32 scalar, about what the opacity is.

    Returns:
      Opacity, and a gain of exactly 1 unless it clearly changes the colour, by `LEAST_GAIN` of white's at least.
    """
    start = tf.clip_by_value(start, _LOWEST, _HIGHEST)
    seen = _seen(picture, layer, start)
    marked = _where_marked(seen)
    fine = _root(marked, start, _STEPS, is_blurred=False)
    coarse = _root(seen, fine, _BLURRED_STEPS, is_blurred=True)
    opacity = tf.where(tf.abs(fine - coarse) > _CONTRADICTION, coarse, fine)
    plain = Fit(tf.minimum(1.0, opacity), tf.ones([3]))

    # A gain matters as far as it changes the colour: that of a dark channel is anything, and means nothing.
    alpha = tf.maximum(layer[..., 3:], 0.1)
    color = tf.reduce_max(layer[..., :3] / alpha, axis=[0, 1])

    def change(one: tf.Tensor, other: tf.Tensor | float) -> tf.Tensor:
        return tf.reduce_max(color * tf.abs(one - other))

    def with_gain() -> Fit:
        sharp = _jointly(marked, plain, _JOINT_STEPS, is_blurred=False)
        smooth = _jointly(seen, sharp, _BLURRED_STEPS, is_blurred=True)
        changed, apart = change(smooth.gain, 1.0), change(sharp.gain, smooth.gain)
        joint = tf.cond(apart < LEAST_GAIN / 2.0, lambda: sharp, lambda: smooth)
        joint = joint._replace(opacity=tf.minimum(1.0, joint.opacity))
        return tf.cond((changed > LEAST_GAIN) & (apart < changed / 2.0), lambda: joint, lambda: plain)

    # A single step costs little, and tells whether it is worth more.
    at_first = _jointly(marked, plain, 1, is_blurred=False)
    return tf.cond(change(at_first.gain, 1.0) > LEAST_GAIN / 2.0, with_gain, lambda: plain)
