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

import tensorflow as tf

from training.keyed.blend import invert, transmission
from training.keyed.locate import blur, gradients

_LOWEST, _HIGHEST = 0.15, 1.02
_NOISE = 1.5 / 255.0  # of a picture's gradients, from rounding
_LOW_PASS = 6.0
_BLUR = 1.0
_STEPS = 8
_CONTRADICTION = 0.008


def _blurred(x: tf.Tensor, stddev: float) -> tf.Tensor:
    if not stddev:
        return x
    shape = tf.shape(x)
    return tf.reshape(blur(tf.reshape(x, [shape[0], shape[1], shape[2], 2 * x.shape[-1]]), stddev), shape)


def _root(picture: tf.Tensor, layer: tf.Tensor, start: tf.Tensor, stddev: float) -> tf.Tensor:
    color, alpha = layer[..., :3], layer[..., 3:]

    def step(opacity: tf.Tensor) -> tuple[tf.Tensor]:
        shows = transmission(alpha, opacity)
        inverted = invert(picture, layer, opacity)
        trust = tf.square(shows)
        low_pass = blur(tf.clip_by_value(inverted, 0.0, 1.0) * trust, _LOW_PASS) / blur(trust, _LOW_PASS)
        # Times the transmission, so that rounding counts the same everywhere.
        edges = low_pass[:, :, :, None] * gradients(alpha / shows) - gradients(color / shows)
        edges = _blurred(edges * shows[..., None], stddev)
        found = _blurred(gradients(inverted) * shows[..., None], stddev)
        weight = tf.math.rsqrt(tf.square(found) + _NOISE**2)
        change = tf.reduce_sum(weight * edges * found) / (tf.reduce_sum(weight * tf.square(edges)) + 1e-9)
        return (tf.clip_by_value(opacity - change, _LOWEST, _HIGHEST),)

    (opacity,) = tf.while_loop(lambda _: True, step, (start,), maximum_iterations=_STEPS)
    return opacity


def fit(picture: tf.Tensor, layer: tf.Tensor, start: float = 0.9) -> tf.Tensor:
    """Fits the opacity of a located canvas.

    Args:
      picture: float32 `[H, W, 3]` in 0..1.
      layer: float32 `[H, W, 4]`, premultiplied colour and alpha where the canvas lies over it.
      start: where the search begins.

    Returns:
      float32 scalar, 0.15 to 1.
    """
    picture, layer = picture[None], layer[None]
    coarse = _root(picture, layer, tf.constant(start), _BLUR)
    fine = _root(picture, layer, coarse, 0.0)
    return tf.minimum(1.0, tf.where(tf.abs(fine - coarse) > _CONTRADICTION, coarse, fine))
