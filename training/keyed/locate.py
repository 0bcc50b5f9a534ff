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

from training.keyed.canvas_features import CanvasFeatures

_LOW_PASS = 12.0  # standard deviation in pixels of the full resolution
_STRENGTH = 6.0  # likewise, of the neighbourhood that gradients are compared with
_NOISE = 2.0 / 255.0  # added to a gradient's local strength: flat areas are not infinitely sure
_CLIP = 3.0  # a natural edge counts no more than this many times its neighbourhood
# Share of the largest energy that is added to each: an offset where little of the mark shows needs more evidence.
DAMPING = 0.05
_FFT_MULTIPLE = 64


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
    """Gaussian blur of float32 `[N, H, W, C]` over what lies inside the picture, not over a border of zeros."""
    radius = int(3 * stddev + 0.5)
    offsets = tf.range(-radius, radius + 1, dtype=tf.float32)
    kernel = tf.exp(-0.5 * tf.square(offsets / stddev))

    def weighted(x: tf.Tensor) -> tf.Tensor:
        channels = x.shape[-1]
        for shape in ([-1, 1, 1, 1], [1, -1, 1, 1]):
            x = tf.nn.depthwise_conv2d(x, tf.tile(tf.reshape(kernel, shape), [1, 1, channels, 1]), [1] * 4, "SAME")
        return x

    return weighted(x) / weighted(tf.ones_like(x[:1, :, :, :1]))


def gradients(x: tf.Tensor) -> tf.Tensor:
    """Differences to the next pixel along x and y, float32 `[N, H, W, C]` to `[N, H, W, 2, C]`; 0 at the border."""
    along_x = tf.pad(x[:, :, 1:] - x[:, :, :-1], [[0, 0], [0, 0], [0, 1], [0, 0]])
    along_y = tf.pad(x[:, 1:] - x[:, :-1], [[0, 0], [0, 1], [0, 0], [0, 0]])
    return tf.stack([along_x, along_y], axis=3)


def picture_fields(picture: tf.Tensor, shrunk_by: float = 1.0) -> PictureFields:
    """Computes what the filter needs of a picture.

    Args:
      picture: float32 `[H, W, 3]` in 0..1.
      shrunk_by: how many pixels of the full resolution a pixel of it stands for, along a side.
    """
    x = picture[None]
    low_pass = blur(x, _LOW_PASS / shrunk_by)
    of_picture = gradients(x)
    power = tf.reduce_mean(tf.square(of_picture), axis=[3, 4])[..., None]
    strength = tf.sqrt(blur(power, _STRENGTH / shrunk_by**0.5)) + _NOISE
    whitened = of_picture / strength[..., None]
    whitened = tf.clip_by_value(whitened, -_CLIP, _CLIP) / strength[..., None]
    against_alpha = -tf.reduce_sum(whitened * low_pass[:, :, :, None], axis=-1, keepdims=True)
    fields = tf.concat([against_alpha, whitened], axis=-1)[0]
    inverse = 1.0 / tf.square(strength)
    products = tf.concat(
        [
            inverse * tf.ones_like(low_pass),
            -2.0 * inverse * low_pass,
            inverse * tf.reduce_sum(tf.square(low_pass), axis=-1, keepdims=True),
        ],
        axis=-1,
    )[0]
    return PictureFields(
        tf.transpose(fields, [3, 2, 0, 1]),
        tf.transpose(products, [2, 0, 1]),
        tf.transpose(low_pass[0], [2, 0, 1]),
        inverse[0, ..., 0],
    )


def expected_gradients(fields: PictureFields, layer: tf.Tensor) -> tf.Tensor:
    """What a fully opaque canvas would add to the picture's gradients, float32 `[6, H, W]`: along x, then along y.

    Args:
      fields: of the picture.
      layer: the premultiplied canvas over it, float32 `[H, W, 4]`.
    """
    of_layer = tf.transpose(gradients(layer[None])[0], [2, 3, 0, 1])  # [2, 4, H, W]
    expected = of_layer[:, :3] - fields.low_pass[None] * of_layer[:, 3:]
    return tf.concat([expected[0], expected[1]], axis=0)


def score_map(fields: PictureFields, canvas: CanvasFeatures) -> tf.Tensor:
    """Scores every offset of a canvas.

    Args:
      fields: of the picture.
      canvas: at the picture's resolution.

    Returns:
      float32 `[P, Q]`, P at least the sum of both heights, Q of both widths: the score with the canvas's top left
      corner at pixel `(i - 1, j - 1)`, negative offsets being counted from the end, as FFTs have it.
    """
    picture_shape = tf.shape(fields.products)[1:]
    canvas_shape = tf.constant(canvas.products.shape[1:])
    size = -(-(picture_shape + canvas_shape) // _FFT_MULTIPLE) * _FFT_MULTIPLE

    def correlated(picture_fields: tf.Tensor, canvas_fields: tf.Tensor) -> tf.Tensor:
        spectrum = tf.math.conj(tf.signal.rfft2d(canvas_fields, size)) * tf.signal.rfft2d(picture_fields, size)
        return tf.signal.irfft2d(tf.reduce_sum(spectrum, axis=0), size)

    mixed = tf.einsum("kr,kdhw->rdhw", canvas.gradient_mixing, fields.gradients)
    flat = tf.concat([mixed[:, 0], mixed[:, 1]], axis=0)
    canvas_flat = tf.concat([canvas.gradients[:, 0], canvas.gradients[:, 1]], axis=0)
    matched = correlated(flat, canvas_flat)
    mixed = tf.einsum("kv,khw->vhw", canvas.product_mixing, fields.products)
    energy = tf.maximum(0.0, correlated(mixed, tf.constant(canvas.products)))
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
