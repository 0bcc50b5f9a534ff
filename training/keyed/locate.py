"""Locates a known canvas in an image, by a matched filter that knows how a blend changes gradients.

The blend adds `t (grad(a c) - y grad(a))` to the image's gradient. Its sign and size depend on what lies beneath, so a
fixed edge template misses colored and dark watermarks. The filter takes the image's low-pass L for y, and whitens
gradients by their local strength s, `g = clip(grad(x) / s) / s`. Its response at an offset d is

    num(d) = sum (grad(a c) - L grad(a))(p - d) . g(p)
    den(d) = sum |grad(a c) - L grad(a)|^2(p - d) / s(p)^2
    score  = num / sqrt(den)

summed over channels and pixels; FFTs compute the sums for all offsets at once. Images without the canvas score as
noise does, a few units.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from training.keyed.canvas_features import CanvasFeatures, gradients

_LOW_PASS = 12.0  # standard deviation of the low-pass, in pixels at full resolution
_STRENGTH = 6.0  # standard deviation of the neighborhood that sets a gradient's local strength, in such pixels
_FINEST = 3.0  # minimum standard deviation in samples: wider blurs are computed at as low a resolution as this allows
_NOISE = 2.0 / 255.0  # added to the local strength of gradients, so that flat areas do not divide by zero
_CLIP = 3.0  # a natural edge counts at most this many times its neighborhood
# Share of the largest energy that is added to each: an offset where little of the watermark shows needs more evidence.
DAMPING = 0.05
_FFT_MULTIPLE = 32
_BESIDE = 4


class PictureFields(NamedTuple):
    """Images as the filter sees them. The axis to mix comes first, so that mixing is one matrix product.

    Attributes:
      gradients: float32 `[4, B, 2, H, W]`, along x and y, the factors of `grad(a), grad(a c)`: `-sum_ch g L`, then g
        per channel.
      products: float32 `[7, B, H, W]`, the factors of the products of `Spanning`.
      low_pass: float32 `[3, B, H, W]`, L.
      inverse_power: float32 `[B, H, W]`, `1 / s^2`.
    """

    gradients: tf.Tensor
    products: tf.Tensor
    low_pass: tf.Tensor
    inverse_power: tf.Tensor


def blur(planes: tf.Tensor, stddev: tf.Tensor | float) -> tf.Tensor:
    """Gaussian blur that averages over pixels inside the image alone, not over a border of zeros.

    A wide blur is computed at a fraction of the resolution, which gives almost the same result.

    Args:
      planes: float32 `[..., H, W]`.
      stddev: in pixels.

    Returns:
      float32 of the same shape.
    """
    shape = tf.shape(planes)
    height, width = tf.unstack(shape)[-2:]
    factor = tf.maximum(1.0, tf.floor(stddev / _FINEST))

    def weights(length: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns float32 `[count, length]` and the count; coarse samples lie where resizing expects them."""
        length = tf.cast(length, tf.float32)
        count = tf.math.ceil(length / factor)
        at, middles = tf.range(length) + 0.5, (tf.range(count) + 0.5) * (length / count)
        kernel = tf.exp(-0.5 * tf.square((tf.expand_dims(middles, 1) - at) / stddev))
        return kernel / tf.reduce_sum(kernel, axis=1, keepdims=True), tf.cast(count, tf.int32)

    # Matrix products, which for so few planes are many times as fast as depthwise convolutions. Both factors have rank
    # 2: oneDNN in TensorFlow 2.21 writes out of bounds in the product of a stack of matrices with a single one, on
    # processors with AVX-512 (tensorflow#117700).
    (down, rows), (across, columns) = weights(height), weights(width)
    small = tf.matmul(tf.reshape(planes, [-1, width]), across, transpose_b=True)
    small = tf.transpose(tf.reshape(small, [-1, height, columns]), [0, 2, 1])
    small = tf.matmul(tf.reshape(small, [-1, height]), down, transpose_b=True)
    small = tf.reshape(tf.transpose(tf.reshape(small, [-1, columns, rows]), [0, 2, 1]), [-1, rows, columns, 1])
    size = tf.stack([height, width])
    return tf.reshape(tf.raw_ops.ResizeBilinear(images=small, size=size, half_pixel_centers=True), shape)


def _spectrum(planes: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Fourier transform of float32 `[..., H, W]`, zero-padded to `size`, int32 `[2]`."""
    missing = tf.pad((size - tf.shape(planes)[-2:])[:, None], [[len(planes.shape) - 2, 0], [1, 0]])
    # `tf.signal.rfft2d` would add many times the operations, and the time to load a graph grows with its size.
    return tf.raw_ops.RFFT2D(input=tf.pad(planes, missing), fft_length=size)


def picture_fields(
    pictures: tf.Tensor, shrunk_by: tf.Tensor | float = 1.0, counts: tf.Tensor | None = None
) -> PictureFields:
    """Computes what the filter needs to know about images.

    Args:
      pictures: float32 `[B, H, W, 3]` in 0..1.
      shrunk_by: factor along each side by which the images were shrunk.
      counts: float32 `[B, H, W]`, 0 for pixels to leave out, else 1; None if all count.
    """
    shrunk_by = tf.cast(shrunk_by, tf.float32)
    # Channels first, because everything below sums over channels or goes to FFTs.
    x = tf.transpose(pictures, [3, 0, 1, 2])
    low_pass = blur(x, _LOW_PASS / shrunk_by)
    of_picture = gradients(x)
    power = tf.reduce_mean(tf.square(of_picture), axis=[0, 2])
    strength = tf.sqrt(blur(power, _STRENGTH / tf.sqrt(shrunk_by))) + _NOISE
    inverse = 1.0 / strength
    of_both = tf.expand_dims(inverse, 1)  # along x and y
    whitened = tf.clip_by_value(of_picture * of_both, -_CLIP, _CLIP) * of_both
    inverse *= inverse
    if counts is not None:
        whitened, inverse = whitened * tf.expand_dims(counts, 1), inverse * counts
    against_alpha = -tf.reduce_sum(whitened * tf.expand_dims(low_pass, 2), axis=0, keepdims=True)
    fields = tf.concat([against_alpha, whitened], axis=0)
    twice = -2.0 * inverse * low_pass
    in_square = inverse * tf.reduce_sum(tf.square(low_pass), axis=0, keepdims=True)
    products = tf.concat([tf.stack([inverse] * 3), twice, in_square], axis=0)
    return PictureFields(fields, products, low_pass, inverse)


def expected_gradients(fields: PictureFields, layer: tf.Tensor) -> tf.Tensor:
    """Returns what a fully opaque canvas would add to one image's gradients along x and y, float32 `[3, 2, H, W]`.

    Args:
      fields: fields of one image.
      layer: the premultiplied canvas over it, float32 `[H, W, 4]`.
    """
    of_layer = gradients(tf.transpose(layer, [2, 0, 1]))
    return of_layer[:3] - fields.low_pass[:, 0, None] * of_layer[3:]


class Spectra(NamedTuple):
    """Conjugate Fourier transforms of a canvas's fields.

    Attributes:
      gradients: complex64 `[R, 1, 2, P, Q / 2 + 1]`, of `CanvasFeatures.gradients`.
      products: complex64 `[V, 1, P, Q / 2 + 1]`, of `CanvasFeatures.products`.
      size: int32 `[2]`, (P, Q).
    """

    gradients: tf.Tensor
    products: tf.Tensor
    size: tf.Tensor


def spectra(canvas: CanvasFeatures, picture_size: tf.Tensor, nested: tf.Tensor | bool = False) -> Spectra:
    """Transforms a canvas for images of one size.

    Args:
      canvas: fields at the images' resolution.
      picture_size: int32 `[2]`, the images' height and width.
      nested: whether only those offsets matter at which, along each axis, one lies inside the other to within `_BESIDE`
        pixels. The transforms are smaller then, and scores at other offsets are meaningless.
    """
    shape = tf.shape(canvas.products)[1:]
    size = tf.where(nested, tf.maximum(shape, picture_size) + _BESIDE, shape + picture_size)
    size = -(-size // _FFT_MULTIPLE) * _FFT_MULTIPLE
    of_gradients, of_products = (
        tf.math.conj(_spectrum(fields, size)) for fields in (canvas.gradients, canvas.products)
    )
    return Spectra(of_gradients[:, None], of_products[:, None], size)


def score_map(fields: PictureFields, canvas: CanvasFeatures, transformed: Spectra | None = None) -> tf.Tensor:
    """Scores every offset of a canvas.

    Args:
      fields: fields of the images.
      canvas: fields at the images' resolution.
      transformed: the canvas's spectra for images of this size; None to compute them here.

    Returns:
      float32 `[B, P, Q]`, where (P, Q) is `Spectra.size`. Element (i, j) is the score with the canvas's top left corner
      at pixel `(i + 1, j + 1)`; negative offsets count from the end, as in FFTs.
    """
    of_canvas = spectra(canvas, tf.shape(fields.inverse_power)[1:]) if transformed is None else transformed

    def correlated(mixing: tf.Tensor, picture_fields: tf.Tensor, conjugate: tf.Tensor, summed: list[int]) -> tf.Tensor:
        shape = tf.shape(picture_fields)
        mixed = tf.matmul(mixing, tf.reshape(picture_fields, [shape[0], -1]), transpose_a=True)
        mixed = tf.reshape(mixed, tf.concat([[mixing.shape[1]], shape[1:]], 0))
        spectrum = tf.reduce_sum(conjugate * _spectrum(mixed, of_canvas.size), axis=summed)
        return tf.raw_ops.IRFFT2D(input=spectrum, fft_length=of_canvas.size)

    matched = correlated(canvas.gradient_mixing, fields.gradients, of_canvas.gradients, [0, 2])
    energy = tf.maximum(0.0, correlated(canvas.product_mixing, fields.products, of_canvas.products, [0]))
    most = tf.reduce_max(energy, axis=[1, 2], keepdims=True)
    return matched / tf.sqrt(energy + DAMPING * most + 1e-12)


def best_offset(
    scores: tf.Tensor, picture_size: tf.Tensor, canvas: CanvasFeatures, nested: tf.Tensor | bool = False
) -> tuple[tf.Tensor, tf.Tensor]:
    """Finds the highest score per image.

    Args:
      scores: float32 `[B, P, Q]`, from `score_map`.
      picture_size: int32 `[2]`, the images' height and width.
      canvas: fields of the canvas that was scored.
      nested: as given to `spectra`; other offsets are ignored.

    Returns:
      The scores, float32 `[B]`, and the canvas's top left corners, int32 `[B, 2]`.
    """
    size = tf.shape(scores)[1:]
    spare = picture_size - tf.shape(canvas.products)[1:]
    firsts = tf.unstack(tf.where(nested, tf.minimum(spare, 0) - _BESIDE, -size))
    lasts = tf.unstack(tf.where(nested, tf.maximum(spare, 0) + _BESIDE, picture_size))
    height, width = tf.unstack(size)

    def offsets(length: tf.Tensor, last: tf.Tensor) -> tf.Tensor:  # negative ones count from the end
        index = tf.range(length)
        return tf.where(index > last, index - length, index)

    rows, columns = offsets(height, lasts[0]), offsets(width, lasts[1])
    counts = tf.expand_dims(rows >= firsts[0], 1) & (columns >= firsts[1])
    scores = tf.reshape(tf.where(counts, scores, tf.float32.min), [-1, height * width])
    index = tf.argmax(scores, axis=1, output_type=tf.int32)
    found = tf.stack([tf.gather(rows, index // width), tf.gather(columns, index % width)], axis=1)
    return tf.reduce_max(scores, axis=1), found + 1  # the canvas's padding shifts it by a pixel
