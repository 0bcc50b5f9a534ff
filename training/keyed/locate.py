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
_BESIDE = 4


class PictureFields(NamedTuple):
    """A picture as the filter sees it.

    Attributes:
      gradients: float32 `[2, 4, H, W]`, along x and y, what `grad(a), grad(a c)` are multiplied with: `-sum_ch g L`,
        then g a channel.
      products: float32 `[7, H, W]`, likewise for the products of `CanvasFeatures`.
      low_pass: float32 `[3, H, W]`, L.
      inverse_power: float32 `[H, W]`, `1 / s^2`.
    """

    gradients: tf.Tensor
    products: tf.Tensor
    low_pass: tf.Tensor
    inverse_power: tf.Tensor


def blur(planes: tf.Tensor, stddev: float) -> tf.Tensor:
    """Gaussian blur of float32 `[C, H, W]` over what lies inside the picture, not over a border of zeros.

    A wide one is computed at a fraction of the resolution, where it is all but the same.
    """
    factor = max(1, int(stddev / _FINEST))
    size = tf.shape(planes)[1:]
    small = tf.nn.avg_pool2d(planes[..., None], factor, factor, "SAME")[..., 0] if factor > 1 else planes

    def weights(length: tf.Tensor) -> tf.Tensor:
        at = tf.cast(tf.range(length), tf.float32)
        kernel = tf.exp(-0.5 * tf.square((at[:, None] - at) * (factor / stddev)))
        return kernel / tf.reduce_sum(kernel, axis=1, keepdims=True)

    # Matrix products: for so few planes they are many times as fast as depthwise convolutions.
    small = tf.matmul(weights(tf.shape(small)[1]), small)
    small = tf.matmul(small, weights(tf.shape(small)[2]), transpose_b=True)
    return tf.image.resize(small[..., None], size)[..., 0] if factor > 1 else small


def picture_fields(picture: tf.Tensor, shrunk_by: float = 1.0, counts: tf.Tensor | None = None) -> PictureFields:
    """Computes what the filter needs of a picture.

    Args:
      picture: float32 `[H, W, 3]` in 0..1.
      shrunk_by: how many pixels of the full resolution a pixel of it stands for, along a side.
      counts: float32 `[H, W]`, 0 for pixels that are to be left out, else 1; all count if there are none.
    """
    # Planes, because everything after is summed over channels or handed to FFTs.
    x = tf.transpose(picture, [2, 0, 1])
    low_pass = blur(x, _LOW_PASS / shrunk_by)
    of_picture = gradients(x)
    power = tf.reduce_mean(tf.square(of_picture), axis=[0, 1])
    strength = tf.sqrt(blur(power[None], _STRENGTH / shrunk_by**0.5)[0]) + _NOISE
    inverse = 1.0 / strength
    whitened = tf.clip_by_value(of_picture * inverse, -_CLIP, _CLIP) * inverse
    inverse *= inverse
    if counts is not None:
        whitened, inverse = whitened * counts, inverse * counts
    against_alpha = -tf.reduce_sum(whitened * low_pass, axis=1, keepdims=True)
    fields = tf.concat([against_alpha, whitened], axis=1)
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


def spectra(canvas: CanvasFeatures, picture_size: tf.Tensor, nested: tf.Tensor | bool = False) -> Spectra:
    """Transforms a canvas for pictures of one size.

    Args:
      canvas: at the pictures' resolution.
      picture_size: int32 `[2]`, their height and width.
      nested: whether only offsets matter at which one lies inside the other, but for `_BESIDE` pixels, along both axes:
        the transforms are smaller then, and at other offsets mean nothing.
    """
    shape = tf.shape(canvas.products)[1:]
    size = tf.where(nested, tf.maximum(shape, picture_size) + _BESIDE, shape + picture_size)
    size = -(-size // _FFT_MULTIPLE) * _FFT_MULTIPLE
    of = [tf.math.conj(tf.signal.rfft2d(fields, size)) for fields in (canvas.gradients, canvas.products)]
    return Spectra(*of, size)


def _mixed(mixing: tf.Tensor, fields: tf.Tensor) -> tf.Tensor:
    """Combinations `[K, R]` of fields `[..., K, H, W]`: `[..., R, H, W]`."""
    shape = tf.shape(fields)
    flat = tf.reshape(fields, tf.concat([shape[:-2], [shape[-2] * shape[-1]]], 0))
    mixed = tf.matmul(mixing, flat, transpose_a=True)
    return tf.reshape(mixed, tf.concat([shape[:-3], [tf.shape(mixed)[-2]], shape[-2:]], 0))


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

    matched = correlated(_mixed(canvas.gradient_mixing, fields.gradients), of_canvas.gradients)
    energy = tf.maximum(0.0, correlated(_mixed(canvas.product_mixing, fields.products), of_canvas.products))
    return matched / tf.sqrt(energy + DAMPING * tf.reduce_max(energy) + 1e-12)


def best_offset(
    scores: tf.Tensor, picture_size: tf.Tensor, canvas: CanvasFeatures, nested: tf.Tensor | bool = False
) -> tuple[tf.Tensor, tf.Tensor]:
    """Finds the highest score.

    Args:
      scores: see `score_map`.
      picture_size: int32 `[2]`, the picture's height and width.
      canvas: whose offsets they are.
      nested: see `spectra`; other offsets are passed over.

    Returns:
      The score, a float32 scalar, and where the canvas's top left corner lies, int32 `[2]`.
    """
    spare = picture_size - tf.shape(canvas.products)[1:]
    first = tf.where(nested, tf.minimum(spare, 0) - _BESIDE, -tf.shape(scores))
    last = tf.where(nested, tf.maximum(spare, 0) + _BESIDE, picture_size)

    def offsets(axis: int) -> tf.Tensor:  # the negative ones are counted from the end
        index, length = tf.range(tf.shape(scores)[axis]), tf.shape(scores)[axis]
        return tf.where(index > last[axis], index - length, index)

    rows, columns = offsets(0), offsets(1)
    counts = (rows >= first[0])[:, None] & (columns >= first[1])
    scores = tf.where(counts, scores, tf.float32.min)
    index = tf.argmax(tf.reshape(scores, [-1]), output_type=tf.int32)
    width = tf.shape(scores)[1]
    found = tf.stack([tf.gather(rows, index // width), tf.gather(columns, index % width)])
    return tf.reduce_max(scores), found + 1  # the padding of the canvas moves it by a pixel
