"""Fits the opacity and color of a located canvas, so that no trace of the watermark is left in the inverted image.

At the true opacity t the gradients of the inverted image y(t) are unrelated to the watermark's. At any other opacity
they contain `(t_true - t) Z`, with `Z = L grad(a / k) - grad(a c / k)`, where k is the transmission and L the low-pass
of y. Z is the gradient of dy/dt without the part that comes from the image's own gradients. So t is the root of

    sum w Z . grad(y(t)) = 0

found by Newton steps. The weight w is small where the image has strong edges of its own, as in iteratively reweighted
least squares. Minimizing the size of the gradients instead would favor too low an opacity, because inversion amplifies
all of them. Leaving the image's part out of Z makes Z an instrument in the statistical sense, and the root unbiased.

A watermark laid on in another color than its file's also has a per-channel gain. Each gain has an instrument of its
own, `t grad(a c / k)`, and all four unknowns are solved for together. Gains that seem to be 1 are not fitted, because
fitting opacity alone is more precise.

JPEG and interpolation weaken a watermark's finest edges, and pixel-to-pixel gradients then give too low an opacity.
Slightly blurred gradients do not, but they are less precise, so they are used only when the edges may be weakened.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from training.keyed.blend import transmission
from training.keyed.locate import blur
from training.keyed.traced import INTEGER, NUMBER, once

_LOWEST, _HIGHEST = 0.15, 1.02
_NOISE = 1.5 / 255.0  # noise of an image's gradients, from rounding
_LOW_PASS = 6.0  # standard deviation in pixels
_SOME, _MORE = 2048, 16384  # pixels that are enough for a first estimate, and for a better one
_STEPS, _LAST_STEPS, _BLURRED_STEPS = 8, 2, 2
_LONGEST_WAY = 3.0
_CONVERGED = 1e-4
_BLUR = np.outer([1, 2, 3, 2, 1], [1, 2, 3, 2, 1]).astype(np.float32) / 81.0
_JOINT_STEPS, _PRIOR, _MOST_GAIN = 4, 1e-5, 3.0
# Minimum share of the weighted squares that a gain must explain. Without a gain the share is up to 0.0023, with one of
# (0.9, 1, 0.75) it is above 0.005.
_EXPLAINED = 0.003
LEAST_GAIN = 0.04  # for a white watermark; JPEG alone shifts the measured gain by almost as much


def _planes(x: tf.Tensor) -> tf.Tensor:
    """`[H, W, C]` to `[C, H, W]`, so that slices are whole rows and per-pixel factors multiply contiguous values."""
    return tf.transpose(x, [2, 0, 1])


def _low_pass(picture: tf.Tensor, layer: tf.Tensor, opacity: tf.Tensor) -> tf.Tensor:
    """Returns the image beneath the watermark, without its details: float32 `[3, H, W]`."""
    inverted = tf.clip_by_value(_parts(picture, layer, opacity)[4:], 0.0, 1.0)
    trust = tf.square(transmission(layer[3:], opacity))
    blurred = blur(tf.concat([inverted * trust, trust], axis=0), _LOW_PASS)
    return blurred[:3] / blurred[3:]


class _Parts(NamedTuple):
    """Pixels and their neighbors at one opacity, each float32 `[7, ...]`: layer / transmission, then inverted image."""

    here: tf.Tensor
    right: tf.Tensor
    below: tf.Tensor


def _parts(picture: tf.Tensor, layer: tf.Tensor, opacity: tf.Tensor) -> tf.Tensor:
    return tf.concat([layer, picture - opacity * layer[:3]], axis=0) / transmission(layer[3:], opacity)


class _Seen(NamedTuple):
    """A window `[C, H, W]`: the image, its low-pass, and the layer over it."""

    picture: tf.Tensor
    beneath: tf.Tensor
    layer: tf.Tensor

    @property
    def low_pass(self) -> tf.Tensor:
        """Float32 `[3, H - 1, W - 1]`: the last row and column lack neighbors."""
        return self.beneath[:, :-1, :-1]

    @property
    def alpha(self) -> tf.Tensor:
        """Float32 `[1, H - 1, W - 1]`."""
        return self.layer[3:, :-1, :-1]

    def parts(self, opacity: tf.Tensor) -> _Parts:
        """Returns the parts of all pixels but the last row and column."""
        parts = _parts(self.picture, self.layer, opacity)
        return _Parts(parts[:, :-1, :-1], parts[:, :-1, 1:], parts[:, 1:, :-1])

    def edges(self) -> tf.Tensor:
        """Returns the indices of the pixels at the watermark's edges, the only informative ones: int32 `[N]`."""
        here, right, below = self.layer[:, :-1, :-1], self.layer[:, :-1, 1:], self.layer[:, 1:, :-1]
        has_edge = tf.reduce_any((right != here) | (below != here), axis=0)
        index = tf.where(tf.reshape(tf.pad(has_edge, [[0, 1], [0, 1]]), [-1]))[:, 0]
        return tf.cast(index, tf.int32)

    def with_gain(self, gain: tf.Tensor) -> _Seen:
        """Multiplies the layer's color by a gain."""
        return self._replace(layer=_times(self.layer, gain))


class _Marked(NamedTuple):
    """Pixels `[C, N]`, and their neighbors to the right and below."""

    low_pass: tf.Tensor
    pictures: tuple[tf.Tensor, tf.Tensor, tf.Tensor]
    layers: tuple[tf.Tensor, tf.Tensor, tf.Tensor]

    @classmethod
    def of(cls, seen: _Seen, index: tf.Tensor) -> _Marked:
        """Picks the pixels with the given indices, such as those of `_Seen.edges`."""

        def pick(x: tf.Tensor, beside: tf.Tensor | int) -> tf.Tensor:
            return tf.gather(tf.reshape(x, [x.shape[0], -1]), index + beside, axis=1)

        neighbours = (0, 1, tf.shape(seen.layer)[2])
        pictures, layers = (tuple(pick(x, beside) for beside in neighbours) for x in (seen.picture, seen.layer))
        return cls(pick(seen.beneath, 0), pictures, layers)

    @property
    def alpha(self) -> tf.Tensor:
        """Float32 `[1, N]`."""
        return self.layers[0][3:]

    def parts(self, opacity: tf.Tensor) -> _Parts:
        """Returns the parts of all pixels."""
        return _Parts(*(_parts(picture, layer, opacity) for picture, layer in zip(self.pictures, self.layers)))

    def with_gain(self, gain: tf.Tensor) -> _Marked:
        """Multiplies the layer's color by a gain."""
        return self._replace(layers=tuple(_times(layer, gain) for layer in self.layers))


def _times(layer: tf.Tensor, gain: tf.Tensor) -> tf.Tensor:
    """Multiplies the color of a layer `[4, ...]` by a gain `[3]`."""
    return layer * tf.reshape(tf.concat([gain, [1.0]], axis=0), [4] + [1] * (len(layer.shape) - 1))


class _Slopes(NamedTuple):
    """Gradients along x and y of each color, `[6, ...]`, times the transmission, so that rounding counts equally.

    Attributes:
      edges: Z.
      found: the inverted image's gradients.
      of_color: the part of Z that comes from the canvas's color.
    """

    edges: tf.Tensor
    found: tf.Tensor
    of_color: tf.Tensor


def _slopes(seen: _Seen | _Marked, opacity: tf.Tensor, is_blurred: bool) -> _Slopes:
    parts = seen.parts(opacity)
    shows = transmission(seen.alpha, opacity)
    changes = [(neighbour - parts.here) * shows for neighbour in (parts.right, parts.below)]
    slopes = _Slopes(
        tf.concat([seen.low_pass * change[3:4] - change[:3] for change in changes], axis=0),
        tf.concat([change[4:] for change in changes], axis=0),
        -tf.concat([change[:3] for change in changes], axis=0),
    )
    return _Slopes(*map(_blurred, slopes)) if is_blurred else slopes


def _blurred(planes: tf.Tensor) -> tf.Tensor:
    """Blurs fields `[C, H, W]` by a standard deviation of 1.2 pixels, and drops the border.

    Only every other row and column is kept; those in between would repeat the same information.
    """
    return tf.nn.conv2d(planes[..., None], _BLUR[..., None, None], 2, "VALID")[..., 0]


def _root(seen: _Seen | _Marked, start: tf.Tensor, steps: tf.Tensor, is_blurred: bool) -> tf.Tensor:
    """Solves for the opacity. Steps of reweighted least squares are too short; the last two say how far to go."""

    def step(
        number: tf.Tensor, opacity: tf.Tensor, last: tf.Tensor, last_change: tf.Tensor, _: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        edges, found, _ = _slopes(seen, opacity, is_blurred)
        weighted = edges * tf.math.rsqrt(tf.square(found) + _NOISE**2)
        change = tf.reduce_sum(weighted * found) / (tf.reduce_sum(weighted * edges) + 1e-9)
        way = tf.math.divide_no_nan(opacity - last, change - last_change)
        moved = change * tf.clip_by_value(way, 1.0, _LONGEST_WAY)
        return number + 1, tf.clip_by_value(opacity - moved, _LOWEST, _HIGHEST), opacity, change, moved

    return tf.while_loop(
        lambda number, *state: (number < steps) & (tf.abs(state[-1]) > _CONVERGED),
        step,
        (0, start, start, tf.zeros([]), tf.ones([])),
        parallel_iterations=1,
    )[1]


_COLORS, _LAYER = tf.TensorSpec([3, None], tf.float32), tf.TensorSpec([4, None], tf.float32)
MARKED = _Marked(_COLORS, (_COLORS,) * 3, (_LAYER,) * 3)
SEEN = _Seen(*(tf.TensorSpec([channels, None, None], tf.float32) for channels in (3, 3, 4)))
_root_sharp = once(functools.partial(_root, is_blurred=False), MARKED, NUMBER, INTEGER)


class Fit(NamedTuple):
    """How a canvas was laid on.

    Attributes:
      opacity: float32 scalar, 0.15 to 1.
      gain: float32 `[3]`, the factors of its red, green and blue.
    """

    opacity: tf.Tensor
    gain: tf.Tensor


FIT = Fit(NUMBER, tf.TensorSpec([3], tf.float32))


def gained(layer: tf.Tensor, gain: tf.Tensor) -> tf.Tensor:
    """Multiplies the color of a premultiplied layer `[..., 4]` by a gain `[3]`."""
    return layer * tf.concat([gain, [1.0]], axis=0)


def _jointly(seen: _Seen | _Marked, start: Fit, steps: tf.Tensor, is_blurred: bool) -> tuple[Fit, tf.Tensor]:
    """Fits the opacity and the three gains together.

    Returns the fit, and the share of the weighted squares that the last step explained, float32 scalar.
    """

    def step(number: tf.Tensor, fitted: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        slopes = _slopes(seen.with_gain(fitted[1:]), fitted[0], is_blurred)
        edges, found, of_color = (tf.reshape(x, [2, 3, -1]) for x in slopes)
        # The opacity changes all channels, a gain only its own.
        of_gain = of_color * (fitted[0] / fitted[1:])[:, None]
        weight = tf.math.rsqrt(tf.square(found) + _NOISE**2)

        def moments(one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
            return tf.reduce_sum(weight * one * other, axis=[0, 2])

        mixed = moments(edges, of_gain)
        first = tf.concat([tf.reduce_sum(moments(edges, edges))[None], mixed], axis=0)
        others = tf.concat([mixed[:, None], tf.linalg.diag(moments(of_gain, of_gain))], axis=1)
        normal = tf.concat([first[None], others], axis=0)
        normal += (_PRIOR * tf.linalg.trace(normal) + 1e-9) * tf.eye(4)  # the gain of a black watermark is undefined
        answer = tf.concat([tf.reduce_sum(moments(edges, found))[None], moments(of_gain, found)], axis=0)
        change = tf.linalg.solve(normal, answer[:, None])[:, 0]
        explained = tf.reduce_sum(answer * change) / (tf.reduce_sum(moments(found, found)) + 1e-9)
        lowest, highest = [_LOWEST] + [1.0 / _MOST_GAIN] * 3, [_HIGHEST] + [_MOST_GAIN] * 3
        return number + 1, tf.clip_by_value(fitted - change, lowest, highest), explained

    state = (0, tf.concat([[start.opacity], start.gain], axis=0), tf.zeros([]))
    _, fitted, explained = tf.while_loop(lambda number, *_: number < steps, step, state, parallel_iterations=1)
    return Fit(fitted[0], fitted[1:]), explained


_jointly_sharp = once(functools.partial(_jointly, is_blurred=False), MARKED, FIT, INTEGER)
_jointly_smooth = once(functools.partial(_jointly, is_blurred=True), SEEN, FIT, INTEGER)


def fit(
    picture: tf.Tensor, layer: tf.Tensor, start: tf.Tensor | float = 0.9, is_exact: tf.Tensor | bool = False
) -> Fit:
    """Fits the opacity of a located canvas, and the gain of its color if it clearly has one.

    Args:
      picture: float32 `[H, W, 3]` in 0..1.
      layer: float32 `[H, W, 4]`, premultiplied color and alpha of the canvas where it lies over the image.
      start: float32 scalar, a rough opacity.
      is_exact: whether the layer lies on whole pixels and the image was not saved as a JPEG afterwards.

    Returns:
      The opacity, and a gain that is exactly 1 unless it clearly changes the color, by more than `LEAST_GAIN` of white.
    """
    start = tf.clip_by_value(start, _LOWEST, _HIGHEST)
    planes = _planes(picture), _planes(layer)
    seen = _Seen(planes[0], _low_pass(*planes, start), planes[1])
    index = seen.edges()

    def marked(most: int | None = None) -> _Marked:
        step = tf.maximum(1, tf.size(index) // most) if most else 1
        return _Marked.of(seen, tf.gather(index, tf.range(0, tf.size(index), step)) if most else index)

    near = _root_sharp(marked(_SOME), start, _STEPS)
    opacity = tf.cond(
        tf.convert_to_tensor(is_exact),
        lambda: _root_sharp(marked(), near, _LAST_STEPS),
        lambda: _root(seen, near, _BLURRED_STEPS, is_blurred=True),
    )
    plain = Fit(tf.minimum(1.0, opacity), tf.ones([3]))

    # A gain counts by how much it changes the color: the gain of a dark channel is arbitrary.
    alpha = tf.maximum(layer[..., 3:], 0.1)
    color = tf.reduce_max(layer[..., :3] / alpha, axis=[0, 1])

    def change(one: tf.Tensor, other: tf.Tensor | float) -> tf.Tensor:
        return tf.reduce_max(color * tf.abs(one - other))

    def with_gain() -> Fit:
        sharp, _ = _jointly_sharp(marked(), plain, _JOINT_STEPS)
        smooth, _ = _jointly_smooth(seen, sharp, _BLURRED_STEPS)
        # Over a background of one brightness, any opacity fits with some gain.
        _, explained = _jointly_smooth(seen, plain, 1)
        changed, apart = change(smooth.gain, 1.0), change(sharp.gain, smooth.gain)
        joint = tf.cond(apart < LEAST_GAIN / 2.0, lambda: sharp, lambda: smooth)
        joint = joint._replace(opacity=tf.minimum(1.0, joint.opacity))
        is_clear = (changed > LEAST_GAIN) & (apart < changed / 2.0) & (explained > _EXPLAINED)
        return tf.cond(is_clear, lambda: joint, lambda: plain)

    # A single step is cheap, and tells whether the full fit is worth it.
    at_first, _ = _jointly_sharp(marked(_MORE), plain, 1)
    return tf.cond(change(at_first.gain, 1.0) > LEAST_GAIN / 2.0, with_gain, lambda: plain)
