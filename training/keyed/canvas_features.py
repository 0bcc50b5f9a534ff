"""What a search needs to know about a canvas: the gradients of its alpha and color, in as few fields as span them.

At a watermark's edges the blend adds `t (grad(a c) - y grad(a))` to the image's gradient. The four gradients of
`a, a c_r, a c_g, a c_b` are multiples of a single one if the watermark has one color, and combinations of two if it has
an outline. So are the seven products that the energy of that term expands to. Fewer fields take fewer FFTs.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import tensorflow as tf

# Singular values below this share of the largest are color noise.
_RANK_TOLERANCE = 0.02
# Minimum correlation of a canvas with itself at a shift that counts as a repeat, and minimum overlap as a share of it.
_REPEATS, _LEAST_OVERLAP = 0.9, 0.2
_SAME = 1e-3  # relative difference up to which repeats count as identical
_NEIGHBOURHOOD = 9  # pixels per side in which only the best shift is kept


class Spanning(NamedTuple):
    """A few combinations of a canvas's alpha and color that span its gradients.

    Attributes:
      gradients: float32 `[4, R]`, R in 1..4, with orthonormal columns. Column r combines a, a c_r, a c_g, a c_b into
        field r; the gradient of the i-th of them is the sum over r of `gradients[i, r]` times the gradient of field r.
      products: float32 `[7, P]`, which combines the P products of pairs of such gradients into |grad(a c)|^2 per
        channel, grad(a c) . grad(a) per channel, and |grad a|^2.
    """

    gradients: np.ndarray
    products: np.ndarray


class CanvasFeatures(NamedTuple):
    """The fields of one canvas at one resolution; the canvas is padded by one transparent pixel on each side.

    Attributes:
      gradients: float32 `[R, 2, h, w]`, gradients along x and y of the combinations.
      gradient_mixing: float32 `[4, R]`, which turns them into the gradients of a, a c_r, a c_g, a c_b.
      products: float32 `[V, h, w]`, V in 1..7.
      product_mixing: float32 `[7, V]`, which turns them into the seven products of `Spanning`.
    """

    gradients: tf.Tensor
    gradient_mixing: np.ndarray
    products: tf.Tensor
    product_mixing: np.ndarray


def premultiplied(rgba: np.ndarray) -> np.ndarray:
    """Premultiplies a canvas, as blending needs it.

    Args:
      rgba: uint8 `[h, w, 4]`.

    Returns:
      float32 `[h, w, 4]` in 0..1: `a c_r, a c_g, a c_b, a`.
    """
    rgba = rgba.astype(np.float32) / 255.0
    return np.concatenate([rgba[..., :3] * rgba[..., 3:], rgba[..., 3:]], axis=-1)


def shrunk(layer: np.ndarray, factor: int) -> np.ndarray:
    """Averages a premultiplied canvas down to `1 / factor` of its resolution, float32; pads it to whole blocks."""
    height, width = layer.shape[:2]
    padded = np.pad(layer, ((0, -height % factor), (0, -width % factor), (0, 0)))
    blocks = padded.reshape(padded.shape[0] // factor, factor, padded.shape[1] // factor, factor, -1)
    return blocks.mean(axis=(1, 3), dtype=np.float32)


def _products_of(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Multiplies combinations, `[K, R]` each, into combinations of `_pairs`, `[K, R (R + 1) / 2]`."""
    columns = []
    for first, second in _pairs(one.shape[1]):
        product = one[:, first] * other[:, second]
        columns.append(product if first == second else product + one[:, second] * other[:, first])
    return np.stack(columns, axis=1)


def _pairs(rank: int) -> list[tuple[int, int]]:
    return list(itertools.combinations_with_replacement(range(rank), 2))


def spanning(layer: np.ndarray) -> Spanning:
    """Finds a few combinations that span a canvas's gradients.

    Args:
      layer: premultiplied canvas, float32 `[h, w, 4]`, not transparent everywhere.
    """
    padded = np.pad(np.roll(layer, 1, axis=-1), ((1, 1), (1, 1), (0, 0)))  # alpha first
    moments = np.zeros((4, 4))
    for axis in (0, 1):
        gradients = np.diff(padded, axis=axis).reshape(-1, 4).astype(np.float64)
        moments += gradients.T @ gradients
    energies, vectors = np.linalg.eigh(moments)
    vectors = vectors[:, energies > _RANK_TOLERANCE**2 * energies.max()]
    alpha, colors = vectors[:1], vectors[1:]
    products = [_products_of(colors, colors), _products_of(colors, alpha), _products_of(alpha, alpha)]
    return Spanning(vectors.astype(np.float32), np.concatenate(products).astype(np.float32))


def gradients(planes: tf.Tensor) -> tf.Tensor:
    """Differences to the next pixel along x and y, float32 `[..., H, W]` to `[..., 2, H, W]`; 0 at the border."""
    beside = [[0, 0]] * (len(planes.shape) - 2)
    along_x = tf.pad(planes[..., 1:] - planes[..., :-1], [*beside, [0, 0], [0, 1]])
    along_y = tf.pad(planes[..., 1:, :] - planes[..., :-1, :], [*beside, [0, 1], [0, 0]])
    return tf.stack([along_x, along_y], axis=-3)


def periods(layer: np.ndarray) -> np.ndarray:
    """Finds the shifts at which a canvas repeats itself: a part of it matches there as well as at its true place.

    Args:
      layer: premultiplied canvas, float32 `[h, w, 4]`, not transparent everywhere.

    Returns:
      float32 `[K, 2]`, (y, x) in pixels, all repeats that overlap enough; the first is (0, 0).
    """
    height, width = layer.shape[:2]
    size = [2 * height, 2 * width]

    def correlated(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        spectra = (np.fft.rfft2(x, size, axes=(0, 1)) for x in (one, other))
        product = np.conj(next(spectra)) * next(spectra)
        return np.fft.fftshift(np.fft.irfft2(product, size, axes=(0, 1)))

    everywhere = np.ones((height, width))
    agreement = sum(correlated(layer[..., channel], layer[..., channel]) for channel in range(4))
    squares = np.square(layer).sum(-1)
    here, there = correlated(everywhere, squares), correlated(squares, everywhere)
    correlation = (agreement / np.sqrt(np.maximum(here * there, 1e-3 * squares.sum() ** 2))).astype(np.float32)
    overlap = correlated(everywhere, everywhere) / (height * width)
    best_near = tf.nn.max_pool2d(correlation[None, ..., None], _NEIGHBOURHOOD, 1, "SAME")[0, ..., 0].numpy()
    repeats = (correlation > _REPEATS) & (correlation == best_near) & (overlap > _LEAST_OVERLAP)
    shifts = np.argwhere(repeats) - [height, width]
    return shifts[np.argsort(np.abs(shifts).sum(1))].astype(np.float32)


def repeats_exactly(layer: np.ndarray, shifts: np.ndarray) -> bool:
    """Whether the repeats found by `periods` are identical. A rotated pattern's are not: they fall between pixels."""
    height, width = layer.shape[:2]
    for y, x in shifts.astype(int):
        here = layer[max(y, 0) : height + min(y, 0), max(x, 0) : width + min(x, 0)]
        there = layer[max(-y, 0) : height - max(y, 0), max(-x, 0) : width - max(x, 0)]
        if np.abs(here - there).sum() > _SAME * np.abs(here).sum():
            return False
    return True


def canvas_features(layer: tf.Tensor, spanned_by: Spanning) -> CanvasFeatures:
    """Computes the fields.

    Args:
      layer: premultiplied canvas at some resolution, float32 `[h, w, 4]`.
      spanned_by: the combinations that span the canvas's gradients.
    """
    rank, mixing = spanned_by.gradients.shape[1], spanned_by.products
    shape = tf.shape(layer)
    # Alpha is last in `layer`, and first in `spanned_by`.
    fields = tf.matmul(tf.reshape(layer, [-1, 4]), np.roll(spanned_by.gradients, -1, axis=0))
    fields = tf.transpose(tf.reshape(fields, [shape[0], shape[1], rank]), [2, 0, 1])
    of_fields = gradients(tf.pad(fields, [[0, 0], [1, 1], [1, 1]]))
    pairs = tf.stack([tf.reduce_sum(of_fields[i] * of_fields[j], axis=0) for i, j in _pairs(rank)])
    if mixing.shape[1] > len(mixing):  # more pairs than products
        flat = tf.matmul(mixing, tf.reshape(pairs, [mixing.shape[1], -1]))
        pairs = tf.reshape(flat, [len(mixing), shape[0] + 2, shape[1] + 2])
        mixing = np.eye(len(mixing), dtype=np.float32)
    return CanvasFeatures(of_fields, spanned_by.gradients, pairs, mixing)
