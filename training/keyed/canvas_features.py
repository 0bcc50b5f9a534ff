"""What a search for a canvas needs of it: the gradients of its alpha and colour, in as few fields as they span.

At the edges of a mark the blend adds `t (grad(a c) - y grad(a))` to the picture's gradient. The four gradients of
`a, a c_r, a c_g, a c_b` are multiples of one another where a mark has one colour, and of two where it has an outline;
so are the seven products that the energy of that term expands to. A search in fewer fields takes fewer FFTs.
"""

from __future__ import annotations

import dataclasses

import numpy as np

# Singular values below this share of the largest are colour noise.
_RANK_TOLERANCE = 0.02


@dataclasses.dataclass(frozen=True)
class CanvasFeatures:
    """The fields of one canvas at one resolution; the canvas is padded by one transparent pixel on each side.

    Attributes:
      gradients: float32 `[R, 2, h, w]`, fields that span the gradients, along x and y, R of 1 to 4.
      gradient_mixing: float32 `[4, R]`: gradient i is `sum_r gradient_mixing[i, r] gradients[r]`, i being a, a c_r,
        a c_g, a c_b.
      products: float32 `[V, h, w]`, fields that span the products, V of 1 to 7.
      product_mixing: float32 `[7, V]`, likewise for |grad(a c)|^2 a channel, grad(a c) . grad(a) a channel, |grad a|^2.
    """

    gradients: np.ndarray
    gradient_mixing: np.ndarray
    products: np.ndarray
    product_mixing: np.ndarray


def premultiplied(rgba: np.ndarray) -> np.ndarray:
    """The canvas as it is blended.

    Args:
      rgba: uint8 `[h, w, 4]`.

    Returns:
      float32 `[h, w, 4]` in 0..1: `a c_r, a c_g, a c_b, a`.
    """
    rgba = rgba.astype(np.float32) / 255.0
    return np.concatenate([rgba[..., :3] * rgba[..., 3:], rgba[..., 3:]], axis=-1)


def shrunk(layer: np.ndarray, factor: int) -> np.ndarray:
    """A premultiplied canvas at `1 / factor` of its resolution, float32, by averages; its border is padded."""
    height, width = layer.shape[:2]
    padded = np.pad(layer, ((0, -height % factor), (0, -width % factor), (0, 0)))
    blocks = padded.reshape(padded.shape[0] // factor, factor, padded.shape[1] // factor, factor, -1)
    return blocks.mean(axis=(1, 3), dtype=np.float32)


def _spanned(fields: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fields `[..., K]` as `[..., R]` and the mixing `[K, R]` that makes them again."""
    flat = fields.reshape(-1, fields.shape[-1]).astype(np.float64)
    energies, vectors = np.linalg.eigh(flat.T @ flat)
    vectors = vectors[:, energies > _RANK_TOLERANCE**2 * energies.max()]
    return (fields @ vectors).astype(np.float32), vectors.astype(np.float32)


def canvas_features(layer: np.ndarray) -> CanvasFeatures:
    """Computes the fields.

    Args:
      layer: premultiplied canvas, float32 `[h, w, 4]`, not transparent everywhere.
    """
    padded = np.pad(np.roll(layer, 1, axis=-1), ((1, 1), (1, 1), (0, 0)))  # a first
    along_x, along_y = np.zeros_like(padded), np.zeros_like(padded)
    along_x[:, :-1] = np.diff(padded, axis=1)
    along_y[:-1] = np.diff(padded, axis=0)
    gradients = np.stack([along_x, along_y], axis=2)  # [h, w, 2, 4]
    of_alpha, of_color = gradients[..., :1], gradients[..., 1:]
    products = np.concatenate(
        [(of_color**2).sum(2), (of_color * of_alpha).sum(2), (of_alpha**2).sum(2)], axis=-1
    )  # [h, w, 7]
    spanning, mixing = _spanned(gradients)
    product_spanning, product_mixing = _spanned(products)
    return CanvasFeatures(spanning.transpose(3, 2, 0, 1), mixing, product_spanning.transpose(2, 0, 1), product_mixing)
