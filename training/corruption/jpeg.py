"""The loss from saving an image as a JPEG, in graph ops.

The arithmetic follows libjpeg and libjpeg-turbo with their default settings (the accurate integer DCT, "islow", and
smooth upsampling of chroma) step by step, rounding included, so the result is what Pillow decodes from a file it wrote.
All of it is linear maps between roundings. Their coefficients are whole numbers (libjpeg's fixed-point constants), and
in float64 such products and sums are exact in any order. So neither XLA nor an accelerator's reduced precision in
float32 matrix products changes a level.

References: ITU-T T.81 (the JPEG standard) and T.871 (JFIF); Loeffler, Ligtenberg and Moschytz, ICASSP 1989 (the DCT).
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from training.corruption import random
from training.corruption import spec as spec_lib

_BLOCK = 8

# T.81, Annex K, tables K.1 and K.2: quantization steps at quality 50.
_LUMA_STEPS = [
    [16, 11, 10, 16, 24, 40, 51, 61],
    [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77],
    [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101],
    [72, 92, 95, 98, 112, 100, 103, 99],
]
_CHROMA_STEPS = [
    [17, 18, 24, 47, 99, 99, 99, 99],
    [18, 21, 26, 66, 99, 99, 99, 99],
    [24, 26, 56, 99, 99, 99, 99, 99],
    [47, 66, 99, 99, 99, 99, 99, 99],
    [99, 99, 99, 99, 99, 99, 99, 99],
    [99, 99, 99, 99, 99, 99, 99, 99],
    [99, 99, 99, 99, 99, 99, 99, 99],
    [99, 99, 99, 99, 99, 99, 99, 99],
]

# JFIF's color conversion in units of 2**-16, both ways. Chroma is kept centered about 0, and so is Y, from the level
# shift before the DCT to the one after it.
_RGB_TO_YCC = np.array([[19595, 38470, 7471], [-11059, -21709, 32768], [32768, -27439, -5329]]) / 2**16
_YCC_TO_RGB = np.array([[65536, 0, 91881], [65536, -22554, -46802], [65536, 116130, 0]]) / 2**16
# Y rounds half up, chroma half down.
_RGB_TO_YCC_OFFSET = np.array([0.5 - 128.0, 0.5 - 2**-16, 0.5 - 2**-16])[:, None]


# libjpeg's 8-point DCT in units of 2**-13: the left half of each frequency's row; the right half mirrors it, negated
# for odd frequencies. The entries are sums of libjpeg's butterfly constants, so some are a unit off the rounded cosine.
_DCT_LEFT = [
    [8192, 8192, 8192, 8192],
    [11363, 9633, 6437, 2260],
    [10703, 4433, -4433, -10703],
    [9633, -2259, -11362, -6436],
    [8192, -8192, -8192, 8192],
    [6437, -11362, 2261, 9633],
    [4433, -10704, 10704, -4433],
    [2260, -6436, 9633, -11363],
]
_DCT = np.array([[*row, *(x * (-1) ** k for x in reversed(row))] for k, row in enumerate(_DCT_LEFT)]) / 2**13

# libjpeg keeps two fractional bits between its two passes. Its forward DCT is 8 times the orthonormal one.
_GUARD = 4.0


class JpegLoss:
    """Simulates saving each image as a JPEG and reading it back; the quality is drawn per image."""

    def __init__(self, spec: spec_lib.Jpeg):
        qualities = range(round(spec.quality.low), round(spec.quality.high) + 1)
        self._steps = np.stack([quantisation_steps(quality) for quality in qualities])
        self._chroma = spec.chroma

    def __call__(self, clean: tf.Tensor, seeds: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Encodes and decodes every image; see `training.corruption.build` for the contract."""
        draws = random.per_picture(seeds, 2)
        quality = tf.minimum(tf.cast(draws[:, 0] * len(self._steps), tf.int32), len(self._steps) - 1)
        steps = tf.gather(tf.constant(self._steps), quality)
        planes = _ycc_planes(clean)
        if self._chroma == "420":
            planes = tf.concat([_coded(planes[:, :1], steps[:, :1]), _chroma_at_half(planes[:, 1:], steps[:, 1:])], 1)
        else:
            full = _coded(planes, steps)
            if self._chroma == "any":
                half = _chroma_at_half(planes[:, 1:], steps[:, 1:])
                chroma = tf.where((draws[:, 1] < 0.5)[:, None, None, None], half, full[:, 1:])
                full = tf.concat([full[:, :1], chroma], 1)
            planes = full
        return _rgb_pictures(planes), tf.zeros_like(clean[..., :1])


def quantisation_steps(quality: int) -> np.ndarray:
    """Returns libjpeg's quantization steps for Y, Cb and Cr: float64 `[3, 8, 8]`, whole numbers in 1..255.

    Args:
      quality: 1..100, on libjpeg's scale.
    """
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    tables = np.array([_LUMA_STEPS, _CHROMA_STEPS, _CHROMA_STEPS])
    return np.clip((tables * percent + 50) // 100, 1, 255).astype(np.float64)


def _ycc_planes(pictures: tf.Tensor) -> tf.Tensor:
    """Converts RGB float32 `[N, H, W, 3]` in 0..1 to Y, Cb and Cr about 0 in whole levels: float64 `[N, 3, H, W]`."""
    height, width = pictures.shape[1:3]
    levels = tf.transpose(tf.round(tf.clip_by_value(pictures, 0.0, 1.0) * 255.0), [0, 3, 1, 2])
    levels = tf.reshape(tf.cast(levels, tf.float64), [-1, 3, height * width])
    return tf.reshape(tf.floor(tf.matmul(_RGB_TO_YCC, levels) + _RGB_TO_YCC_OFFSET), [-1, 3, height, width])


def _rgb_pictures(planes: tf.Tensor) -> tf.Tensor:
    """Converts back to RGB, clipped to 0..1."""
    height, width = planes.shape[2:]
    levels = tf.floor(tf.matmul(_YCC_TO_RGB, tf.reshape(planes, [-1, 3, height * width])) + 128.5)
    levels = tf.cast(tf.clip_by_value(levels, 0.0, 255.0), tf.float32)
    return tf.transpose(tf.reshape(levels, [-1, 3, height, width]), [0, 2, 3, 1]) / 255.0


def _coded(planes: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
    """Quantizes the DCT of planes and transforms back.

    Args:
      planes: float64 `[N, C, H, W]`, whole levels in -128..127.
      steps: float64 `[N, C, 8, 8]`, quantization steps.

    Returns:
      float64 `[N, C, H, W]`, whole levels in -128..127.
    """
    count, (height, width) = planes.shape[1], planes.shape[2:]
    planes = _extended(planes, -height % _BLOCK, -width % _BLOCK)
    rows, columns = planes.shape[2] // _BLOCK, planes.shape[3]

    def along_rows(matrix: np.ndarray, values: tf.Tensor) -> tf.Tensor:
        return tf.matmul(tf.reshape(values, [-1, _BLOCK]), matrix)

    def along_columns(matrix: np.ndarray, values: tf.Tensor) -> tf.Tensor:
        return tf.matmul(matrix, tf.reshape(values, [-1, _BLOCK, columns]))

    values = _half_up(along_rows(_DCT.T * _GUARD, planes))
    values = _half_up(along_columns(_DCT / _GUARD, values))

    blocks = tf.reshape(values, [-1, count, rows, _BLOCK, columns // _BLOCK, _BLOCK])
    steps = steps[:, :, None, :, None, :]
    # Halves round away from zero: this excess lifts them over the edge, and no other value is that near to it.
    levels = tf.round(blocks * ((1.0 + 2.0**-30) / 8.0 / steps)) * steps

    values = _half_up(along_columns(_DCT.T * _GUARD, levels))
    values = _half_up(along_rows(_DCT / (_GUARD * 8.0), values))
    values = tf.reshape(values, [-1, count, rows * _BLOCK, columns])[:, :, :height, :width]
    return tf.clip_by_value(values, -128.0, 127.0)


def _chroma_at_half(planes: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
    """Does what `_coded` does, at half the resolution (4:2:0)."""
    height, width = planes.shape[2:]
    # libjpeg pads its blocks on the right before averaging and at the bottom after, so rows are not padded to 16 here.
    even = _extended(planes, height % 2, -width % (2 * _BLOCK))
    pairs = even[:, :, ::2] + even[:, :, 1::2]
    # Halves of a level round down and up in turn, so that they add no tint.
    bias = np.resize([0.25, 0.5], even.shape[3] // 2)
    means = tf.floor((pairs[..., ::2] + pairs[..., 1::2]) / 4.0 + bias)
    coded = _coded(means, steps)[..., : -(-width // 2)]
    return _doubled(coded)[:, :, :height, :width]


def _doubled(planes: tf.Tensor) -> tf.Tensor:
    """libjpeg's smooth upsampling to twice the size: nearer samples weigh 3, farther ones 1."""
    height, width = planes.shape[2:]
    if width <= 2:  # libjpeg repeats samples instead
        return tf.repeat(tf.repeat(planes, 2, axis=2), 2, axis=3)
    above = tf.concat([planes[:, :, :1], planes[:, :, :-1]], 2)
    below = tf.concat([planes[:, :, 1:], planes[:, :, -1:]], 2)
    planes = tf.reshape(
        tf.stack([3.0 * planes + above, 3.0 * planes + below], 3), [-1, planes.shape[1], 2 * height, width]
    )
    left = tf.concat([planes[..., :1], planes[..., :-1]], 3)
    right = tf.concat([planes[..., 1:], planes[..., -1:]], 3)
    sums = tf.stack([(3.0 * planes + left + 8.0), (3.0 * planes + right + 7.0)], 4)
    return tf.reshape(tf.floor(sums / 16.0), [-1, planes.shape[1], 2 * height, 2 * width])


def _extended(planes: tf.Tensor, rows: int, columns: int) -> tf.Tensor:
    """Appends copies of the last row and column."""
    below = tf.repeat(planes[:, :, -1:], rows, axis=2)
    planes = tf.concat([planes, below], 2) if rows else planes
    right = tf.repeat(planes[..., -1:], columns, axis=3)
    return tf.concat([planes, right], 3) if columns else planes


def _half_up(values: tf.Tensor) -> tf.Tensor:
    return tf.floor(values + 0.5)
