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

JPEG and interpolation weaken a mark's finest edges, and gradients of pixel against pixel then give an opacity that is
too low. Blurred a little they do not, but are less precise: they serve where that may be so.
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
_SOME = 2048  # pixels that are enough to come near
_STEPS, _LAST_STEPS, _BLURRED_STEPS = 8, 2, 2
_LONGEST_WAY = 3.0
_CONVERGED = 1e-4
_BLUR = np.outer([1, 2, 3, 2, 1], [1, 2, 3, 2, 1]).astype(np.float32) / 81.0
_JOINT_STEPS, _PRIOR, _MOST_GAIN = 4, 1e-5, 3.0
# Share of the weighted squares that a gain must explain: up to 0.0023 without any, above 0.005 for (0.9, 1, 0.75).
_EXPLAINED = 0.003
LEAST_GAIN = 0.04  # of a white mark; JPEG alone shifts what is measured by almost so much


def _low_pass(picture: tf.Tensor, layer: tf.Tensor, opacity: tf.Tensor) -> tf.Tensor:
    """What lies beneath the mark, without its details: float32 `[H, W, 3]`."""
    trust = tf.square(transmission(layer[..., 3:], opacity))
    inverted = tf.clip_by_value(invert(picture, layer, opacity), 0.0, 1.0)
    blurred = blur(tf.concat([inverted * trust, trust], axis=-1)[None], _LOW_PASS)[0]
    return blurred[..., :3] / blurred[..., 3:]


class _Parts(NamedTuple):
    """What an opacity makes of pixels: float32 `[..., 7]`, the layer by the transmission, and the inverted picture."""

    here: tf.Tensor
    right: tf.Tensor
    below: tf.Tensor


def _parts(picture: tf.Tensor, layer: tf.Tensor, opacity: tf.Tensor) -> tf.Tensor:
    return tf.concat([layer / transmission(layer[..., 3:], opacity), invert(picture, layer, opacity)], axis=-1)


class _Seen(NamedTuple):
    """A window `[H, W, C]`: the picture, its low-pass without the last row and column, and the layer over it."""

    low_pass: tf.Tensor
    picture: tf.Tensor
    layer: tf.Tensor

    @property
    def alpha(self) -> tf.Tensor:
        """Float32 `[H - 1, W - 1, 1]`."""
        return self.layer[:-1, :-1, 3:]

    def parts(self, opacity: tf.Tensor) -> _Parts:
        """Of all pixels but the last row and column."""
        parts = _parts(self.picture, self.layer, opacity)
        return _Parts(parts[:-1, :-1], parts[:-1, 1:], parts[1:, :-1])


class _Marked(NamedTuple):
    """Pixels `[N, C]` at which the mark has an edge, and their neighbours to the right and below."""

    low_pass: tf.Tensor
    picture: tf.Tensor
    layer: tf.Tensor
    picture_right: tf.Tensor
    layer_right: tf.Tensor
    picture_below: tf.Tensor
    layer_below: tf.Tensor

    @classmethod
    def of(cls, seen: _Seen) -> _Marked:
        """The pixels that have something to say."""
        at, right, below = np.s_[:-1, :-1], np.s_[:-1, 1:], np.s_[1:, :-1]
        layer = seen.layer
        change = tf.abs(layer[right] - layer[at]) + tf.abs(layer[below] - layer[at])
        index = tf.where(tf.reduce_max(change, axis=-1) > 0.0)
        neighbours = [x[part] for part in (at, right, below) for x in (seen.picture, layer)]
        return cls(*(tf.gather_nd(x, index) for x in (seen.low_pass, *neighbours)))

    @property
    def alpha(self) -> tf.Tensor:
        """Float32 `[N, 1]`."""
        return self.layer[..., 3:]

    def parts(self, opacity: tf.Tensor) -> _Parts:
        """Of all of them."""
        return _Parts(
            _parts(self.picture, self.layer, opacity),
            _parts(self.picture_right, self.layer_right, opacity),
            _parts(self.picture_below, self.layer_below, opacity),
        )


def _edges_and_found(seen: _Seen | _Marked, opacity: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Z, and the inverted picture's gradients, `[..., 6]`; times the transmission, so that rounding counts the same."""
    parts = seen.parts(opacity)
    shows = transmission(seen.alpha, opacity)
    edges, found = [], []
    for neighbour in (parts.right, parts.below):
        change = (neighbour - parts.here) * shows
        edges.append(seen.low_pass * change[..., 3:4] - change[..., :3])
        found.append(change[..., 4:])
    return tf.concat(edges, axis=-1), tf.concat(found, axis=-1)


def _blurred(x: tf.Tensor) -> tf.Tensor:
    """A field `[H, W, C]`, blurred by a standard deviation of 1.2 pixels, without the border.

    Of every other row and column: those between would say the same again.
    """
    planes = tf.transpose(x, [2, 0, 1])[..., None]  # as one channel each: of many, a convolution takes much longer
    return tf.transpose(tf.nn.conv2d(planes, _BLUR[..., None, None], 2, "VALID")[..., 0], [1, 2, 0])


def _root(seen: _Seen | _Marked, start: tf.Tensor, steps: int, is_blurred: bool) -> tf.Tensor:
    """Reweighted least squares goes too short a way each time; how far is right, the last two changes tell."""

    def step(opacity: tf.Tensor, last: tf.Tensor, last_change: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, ...]:
        edges, found = _edges_and_found(seen, opacity)
        if is_blurred:
            edges, found = _blurred(edges), _blurred(found)
        weight = tf.math.rsqrt(tf.square(found) + _NOISE**2)
        change = tf.reduce_sum(weight * edges * found) / (tf.reduce_sum(weight * tf.square(edges)) + 1e-9)
        way = tf.math.divide_no_nan(opacity - last, change - last_change)
        moved = change * tf.clip_by_value(way, 1.0, _LONGEST_WAY)
        return tf.clip_by_value(opacity - moved, _LOWEST, _HIGHEST), opacity, change, moved

    state = (start, start, tf.zeros([]), tf.ones([]))
    return tf.while_loop(
        lambda *state: tf.abs(state[-1]) > _CONVERGED, step, state, maximum_iterations=steps, parallel_iterations=1
    )[0]


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


def _jointly(seen: _Seen | _Marked, start: Fit, steps: int, is_blurred: bool) -> tuple[Fit, tf.Tensor]:
    """Fits the gain together with the opacity: the moments are those of four unknowns.

    Returns the fit, and what share of the weighted squares the last step explained, float32 scalar.
    """
    fitted = tf.concat([[start.opacity], start.gain], axis=0)
    for _ in range(steps):
        colored = type(seen)(*(gained(x, fitted[1:]) if x.shape[-1] == 4 else x for x in seen))
        edges, found = _edges_and_found(colored, fitted[0])
        of_color, _ = _edges_and_found(colored._replace(low_pass=tf.zeros_like(seen.low_pass)), fitted[0])
        if is_blurred:
            edges, found, of_color = _blurred(edges), _blurred(found), _blurred(of_color)
        edges, found, of_color = (tf.reshape(x, [-1, 2, 3]) for x in (edges, found, of_color))
        # With the opacity all channels change, with a gain its own.
        slopes = tf.concat([edges[..., None], tf.linalg.diag(of_color * fitted[0] / fitted[1:])], axis=-1)
        weight = tf.math.rsqrt(tf.square(found) + _NOISE**2)
        weighted = weight[..., None] * slopes
        normal = tf.einsum("ndca,ndcb->ab", weighted, slopes)
        normal += (_PRIOR * tf.linalg.trace(normal) + 1e-9) * tf.eye(4)  # a black mark's colour has no gain
        answer = tf.reduce_sum(weighted * found[..., None], axis=[0, 1, 2])
        change = tf.linalg.solve(normal, answer[:, None])[:, 0]
        explained = tf.reduce_sum(answer * change) / (tf.reduce_sum(weight * tf.square(found)) + 1e-9)
        fitted -= change
        fitted = tf.clip_by_value(fitted, [_LOWEST] + [1.0 / _MOST_GAIN] * 3, [_HIGHEST] + [_MOST_GAIN] * 3)
    return Fit(fitted[0], fitted[1:]), explained


def fit(
    picture: tf.Tensor, layer: tf.Tensor, start: tf.Tensor | float = 0.9, is_exact: tf.Tensor | bool = False
) -> Fit:
    """Fits the opacity of a located canvas, and the gain of its colour where it clearly has one.

    Args:
      picture: float32 `[H, W, 3]` in 0..1.
      layer: float32 `[H, W, 4]`, premultiplied colour and alpha where the canvas lies over it.
      start: float32 scalar, about what the opacity is.
      is_exact: whether the picture was not saved as a JPEG after, and the layer lies on whole pixels.

    Returns:
      Opacity, and a gain of exactly 1 unless it clearly changes the colour, by `LEAST_GAIN` of white's at least.
    """
    start = tf.clip_by_value(start, _LOWEST, _HIGHEST)
    seen = _Seen(_low_pass(picture, layer, start)[:-1, :-1], picture, layer)
    marked = _Marked.of(seen)
    some = _Marked(*(x[:: tf.maximum(1, tf.shape(marked.picture)[0] // _SOME)] for x in marked))
    fine = _root(marked, _root(some, start, _STEPS, is_blurred=False), _LAST_STEPS, is_blurred=False)
    opacity = tf.cond(
        tf.convert_to_tensor(is_exact), lambda: fine, lambda: _root(seen, fine, _BLURRED_STEPS, is_blurred=True)
    )
    plain = Fit(tf.minimum(1.0, opacity), tf.ones([3]))

    # A gain matters as far as it changes the colour: that of a dark channel is anything, and means nothing.
    alpha = tf.maximum(layer[..., 3:], 0.1)
    color = tf.reduce_max(layer[..., :3] / alpha, axis=[0, 1])

    def change(one: tf.Tensor, other: tf.Tensor | float) -> tf.Tensor:
        return tf.reduce_max(color * tf.abs(one - other))

    def with_gain() -> Fit:
        sharp, _ = _jointly(marked, plain, _JOINT_STEPS, is_blurred=False)
        smooth, _ = _jointly(seen, sharp, _BLURRED_STEPS, is_blurred=True)
        # Over a ground of one brightness any opacity will do, with a gain to it.
        _, explained = _jointly(seen, plain, 1, is_blurred=True)
        changed, apart = change(smooth.gain, 1.0), change(sharp.gain, smooth.gain)
        joint = tf.cond(apart < LEAST_GAIN / 2.0, lambda: sharp, lambda: smooth)
        joint = joint._replace(opacity=tf.minimum(1.0, joint.opacity))
        is_clear = (changed > LEAST_GAIN) & (apart < changed / 2.0) & (explained > _EXPLAINED)
        return tf.cond(is_clear, lambda: joint, lambda: plain)

    # A single step costs little, and tells whether it is worth more.
    at_first, _ = _jointly(marked, plain, 1, is_blurred=False)
    return tf.cond(change(at_first.gain, 1.0) > LEAST_GAIN / 2.0, with_gain, lambda: plain)
