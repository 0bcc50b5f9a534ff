"""Where a known canvas lies in a picture: a matched filter that knows how a blend changes gradients.

The blend adds `t (grad(a c) - y grad(a))` to the picture's gradient: its sign and size depend on what lies beneath,
so a fixed edge template misses coloured and dark marks. With the picture's low-pass L for y, and gradients whitened by
their local strength s, `g = clip(grad(x) / s) / s`, the filter's answer at an offset d is

    num(d) = sum (grad(a c) - L grad(a))(p - d) . g(p)
    den(d) = sum |grad(a c) - L grad(a)|^2(p - d) / s(p)^2
    score  = num / sqrt(den)

over channels and pixels, sums that FFTs compute for all offsets at once. On pictures without the canvas scores are
those of noise, a few units.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from training.keyed.canvas_features import CanvasFeatures, gradients

_LOW_PASS = 12.0  # standard deviation in pixels of the full resolution
_STRENGTH = 6.0  # likewise, of the neighbourhood that gradients are compared with
_FINEST = 3.0  # standard deviation in samples that a blur is computed with, where that saves resolution
_NOISE = 2.0 / 255.0  # added to a gradient's local strength: flat areas are not infinitely sure
_CLIP = 3.0  # a natural edge counts no more than this many times its neighbourhood
# Share of the largest energy that is added to each: an offset where little of the mark shows needs more evidence.
DAMPING = 0.05
_FFT_MULTIPLE = 32


class PictureFields(NamedTuple):
    """A picture as the filter sees it.

    Attributes:
      gradients: float32 `[4, 2, H, W]`, what `grad(a), grad(a c)` are multiplied with: `-sum_ch g L`, then g a channel.
      products: float32 `[7, H, W]`, likewise for the products of `CanvasFeatures`.
      low_pass: float32 `[3, H, W]`, L.
      inverse_power: float32 `[H, W]`, `1 / s^2`.
    """

    gradients: tf.Tensor
    products: tf.Tensor
    low_pass: tf.Tensor
    inverse_power: tf.Tensor


def blur(x: tf.Tensor, stddev: float) -> tf.Tensor:
    """Gaussian blur of float32 `[N, H, W, C]` over what lies inside the picture, not over a border of zeros.

    A wide one is computed at a fraction of the resolution, where it is all but the same.
    """
    factor = max(1, int(stddev / _FINEST))
    size = tf.shape(x)[1:3]
    small = tf.nn.avg_pool2d(x, factor, factor, "SAME") if factor > 1 else x

    def weights(length: tf.Tensor) -> tf.Tensor:
        at = tf.cast(tf.range(length), tf.float32)
        kernel = tf.exp(-0.5 * tf.square((at[:, None] - at) * (factor / stddev)))
        return kernel / tf.reduce_sum(kernel, axis=1, keepdims=True)

    # Matrix products: for so few channels they are many times as fast as depthwise convolutions.
    rows, columns = weights(tf.shape(small)[1]), weights(tf.shape(small)[2])
    small = tf.einsum("ij,njwc->niwc", rows, small)
    small = tf.einsum("ij,nhjc->nhic", columns, small)
    return tf.image.resize(small, size) if factor > 1 else small


def picture_fields(picture: tf.Tensor, shrunk_by: float = 1.0, counts: tf.Tensor | None = None) -> PictureFields:
    """Computes what the filter needs of a picture.

    Args:
      picture: float32 `[H, W, 3]` in 0..1.
      shrunk_by: how many pixels of the full resolution a pixel of it stands for, along a side.
      counts: float32 `[H, W]`, 0 for pixels that are to be left out, else 1; all count if there are none.
    """
    # Planes, because everything after is summed over channels or handed to FFTs.
    x = tf.transpose(picture, [2, 0, 1])
    low_pass = tf.transpose(blur(picture[None], _LOW_PASS / shrunk_by)[0], [2, 0, 1])
    of_picture = gradients(x)
    power = tf.reduce_mean(tf.square(of_picture), axis=[0, 1])
    strength = tf.sqrt(blur(power[None, ..., None], _STRENGTH / shrunk_by**0.5)[0, ..., 0]) + _NOISE
    inverse = 1.0 / strength
    whitened = tf.clip_by_value(of_picture * inverse, -_CLIP, _CLIP) * inverse
    inverse *= inverse
    if counts is not None:
        whitened, inverse = whitened * counts, inverse * counts
    against_alpha = -tf.reduce_sum(whitened * low_pass, axis=1, keepdims=True)
    fields = tf.transpose(tf.concat([against_alpha, whitened], axis=1), [1, 0, 2, 3])
    twice = -2.0 * inverse * low_pass
    in_square = inverse * tf.reduce_sum(tf.square(low_pass), axis=0)
    products = tf.concat([tf.stack([inverse] * 3), twice, in_square[None]], axis=0)
    return PictureFields(fields, products, low_pass, inverse)


def expected_gradients(fields: PictureFields, layer: tf.Tensor) -> tf.Tensor:
    """What a fully opaque canvas would add to the picture's gradients, float32 `[6, H, W]`: along x, then along y.

    Args:
      fields: of the picture.
      layer: the premultiplied canvas over it, float32 `[H, W, 4]`.
    """
    of_layer = gradients(tf.transpose(layer, [2, 0, 1]))
    expected = of_layer[:, :3] - fields.low_pass * of_layer[:, 3:]
    return tf.concat([expected[0], expected[1]], axis=0)


class Spectra(NamedTuple):
    """Conjugate Fourier transforms of a canvas's fields.

    Attributes:
      gradients, products: complex64 `[..., P, Q / 2 + 1]`, of those of `CanvasFeatures`.
      size: int32 `[2]`, (P, Q).
    """

    gradients: tf.Tensor
    products: tf.Tensor
    size: tf.Tensor


def spectra(canvas: CanvasFeatures, picture_size: tf.Tensor, wraps: tf.Tensor | bool = False) -> Spectra:
    """Transforms a canvas for pictures of one size.

    Args:
      canvas: at the pictures' resolution.
      picture_size: int32 `[2]`, their height and width.
      wraps: whether only offsets matter at which the picture lies inside the canvas: at others, what is beyond the
        canvas's border is its other side, and the transforms are smaller.
    """
    shape = tf.shape(canvas.products)[1:]
    size = tf.where(wraps, tf.maximum(shape, picture_size), shape + picture_size)
    size = -(-size // _FFT_MULTIPLE) * _FFT_MULTIPLE
    of = [tf.math.conj(tf.signal.rfft2d(fields, size)) for fields in (canvas.gradients, canvas.products)]
    return Spectra(*of, size)


def score_map(fields: PictureFields, canvas: CanvasFeatures, transformed: Spectra | None = None) -> tf.Tensor:
    """Scores every offset of a canvas.

    Args:
      fields: of the picture.
      canvas: at the picture's resolution.
      transformed: of the canvas, for pictures of this size; computed if there are none.

    Returns:
      float32 `[P, Q]`, `Spectra.size`: the score with the canvas's top left corner at pixel `(i - 1, j - 1)`, negative
      offsets being counted from the end, as FFTs have it.
    """
    of_canvas = spectra(canvas, tf.shape(fields.products)[1:]) if transformed is None else transformed

    def correlated(picture_fields: tf.Tensor, conjugate: tf.Tensor) -> tf.Tensor:
        spectrum = conjugate * tf.signal.rfft2d(picture_fields, of_canvas.size)
        return tf.signal.irfft2d(tf.reduce_sum(spectrum, axis=list(range(len(spectrum.shape) - 2))), of_canvas.size)

    mixed = tf.einsum("kr,kdhw->drhw", canvas.gradient_mixing, fields.gradients)
    matched = correlated(mixed, of_canvas.gradients)
    mixed = tf.einsum("kv,khw->vhw", canvas.product_mixing, fields.products)
    energy = tf.maximum(0.0, correlated(mixed, of_canvas.products))
    return matched / tf.sqrt(energy + DAMPING * tf.reduce_max(energy) + 1e-12)


def best_offset(scores: tf.Tensor, picture_size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Finds the highest score.

    Args:
      scores: see `score_map`.
      picture_size: int32 `[2]`, the picture's height and width.

    Returns:
      The score, a float32 scalar, and where the canvas's top left corner lies, int32 `[2]`.
    """
    size = tf.shape(scores)
    index = tf.argmax(tf.reshape(scores, [-1]), output_type=tf.int32)
    found = tf.stack([index // size[1], index % size[1]])
    # Beyond the picture begin the negative offsets; the padding of the canvas moves it by a pixel.
    return tf.reduce_max(scores), tf.where(found > picture_size, found - size, found) + 1
