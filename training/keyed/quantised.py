"""Tells whether an image was saved as a JPEG after a watermark was laid over it.

If not, inverting the blend recovers the image up to rounding, and nothing needs repair. JPEG (ITU-T T.81) rounds the
discrete cosine transform of every 8 x 8 block to multiples of a step, which for the finest patterns is 4 levels or more
at qualities up to 97. A watermark's edges are full of fine patterns. If it was laid last, their coefficients take any
value; if a JPEG was saved afterwards, they are zero or at least a step away from it.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

_BLOCK = 8  # pixels per side of a JPEG block
_FINEST = 8  # a pattern counts as fine if its two frequencies add up to at least this
# Coefficients in levels: after JPEG, those below _ZERO are zeros plus pixel rounding, and none lie from _ZERO to _STEP.
_ZERO, _STEP = 1.3, 3.5
_EDGE = 0.1  # minimum standard deviation of alpha in a block that holds an edge of the watermark
_LEAST = 40.0  # minimum number of coefficients below _STEP for a verdict
# Share of those that lie from _ZERO to _STEP: below 0.1 after JPEG of quality 97 or lower, above 0.2 without JPEG.
_SHARE = 0.12
_LUMA = [0.299, 0.587, 0.114]


def _dct() -> np.ndarray:
    """Returns the matrix of the orthonormal DCT, `[_BLOCK, _BLOCK]`."""
    k, x = np.arange(_BLOCK)[:, None], np.arange(_BLOCK)
    matrix = np.cos(np.pi * k * (2 * x + 1) / (2 * _BLOCK)) * np.sqrt(2 / _BLOCK)
    matrix[0] /= np.sqrt(2)
    return matrix.astype(np.float32)


def _blocks(x: tf.Tensor) -> tf.Tensor:
    """float32 `[H, W]`, sides multiples of `_BLOCK`, to `[B, _BLOCK, _BLOCK]`."""
    rows, columns = tf.shape(x)[0] // _BLOCK, tf.shape(x)[1] // _BLOCK
    x = tf.reshape(x, [rows, _BLOCK, columns, _BLOCK])
    return tf.reshape(tf.transpose(x, [0, 2, 1, 3]), [rows * columns, _BLOCK, _BLOCK])


def was_saved_as_jpeg(picture: tf.Tensor, alpha: tf.Tensor, corner: tf.Tensor) -> tf.Tensor:
    """Tests the blocks in which the watermark has edges.

    Args:
      picture: float32 `[H, W, 3]` in 0..1, a window of an image.
      alpha: float32 `[H, W]`, the watermark's alpha in the window.
      corner: int32 `[2]`, the window's top left pixel in the image, where JPEG's blocks start at (0, 0).

    Returns:
      bool scalar; also true if there are too few such blocks to tell.
    """
    first = -corner % _BLOCK
    size = tf.maximum((tf.shape(alpha) - first) // _BLOCK, 0) * _BLOCK
    luma = tf.tensordot(picture * 255.0, tf.constant(_LUMA), 1)
    luma, alpha, full = (
        _blocks(x[first[0] : first[0] + size[0], first[1] : first[1] + size[1]])
        for x in (luma, alpha, tf.reduce_max(tf.abs(picture - 0.5), axis=-1))
    )
    # Leave out blocks that reach 0 or 255: clipping happens after JPEG, and blurs its steps.
    counts = (tf.math.reduce_std(alpha, axis=[1, 2]) > _EDGE) & (tf.reduce_max(full, axis=[1, 2]) < 0.499)
    dct = _dct()
    # One matrix transforms a whole block; only its rows for fine patterns are kept.
    fine = np.add.outer(np.arange(_BLOCK), np.arange(_BLOCK)) >= _FINEST
    transform = np.kron(dct, dct)[fine.ravel()]
    blocks = tf.reshape(tf.boolean_mask(luma, counts), [-1, _BLOCK**2])
    coefficients = tf.abs(tf.matmul(blocks, transform, transpose_b=True))
    small = tf.reduce_sum(tf.cast(coefficients < _ZERO, tf.float32))
    between = tf.reduce_sum(tf.cast((coefficients >= _ZERO) & (coefficients < _STEP), tf.float32))
    return (small + between < _LEAST) | (between < _SHARE * (small + between))
