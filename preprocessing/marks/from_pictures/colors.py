"""Refines opacity and color where the images alone leave them uncertain, assuming that a mark has few colors.

A mark's effect on an image of medium brightness is known far better than how the effect depends on brightness, and only
that dependence separates opacity from color. If the color is known from elsewhere in the mark, both are known. So each
pixel's color is pulled toward the mean of similar ones: mean shift (Comaniciu and Meer, PAMI 2002) with a kernel as
wide as the pixel's own error. The less the similar colors vary beyond their errors, the stronger the pull, so a mark
with color gradients keeps them.
"""

from __future__ import annotations

import numpy as np

# Levels: distance within which colors are similar, and the least spread assumed among similar colors.
_ALIKE, _LEAST_SPREAD = 3.0, 1.5
# How much flat strokes vary: in alpha, and in their look on gray, in levels.
_FLAT_ALPHA, _FLAT_LEVEL = 0.002, 0.4
# Kernel width, as a multiple of the variance of the value at its center.
_WIDTH = 4.0
# Chi squared with four degrees of freedom: if the images contradict a change this much, the pixel has another color.
_AGAINST = 12.0
# Beneath opaque strokes, one level of error in the common color becomes many in the image. Alpha from which the images
# alone determine colors, the same for looks, and the range below over which their influence grows.
_OPAQUE, _OPAQUE_LOOKS, _TAPER = 0.6, 0.8, 0.2
# Number of pixels that represent all, and number compared with them at a time.
_SAMPLE, _CHUNK = 2000, 2000


def toward_usual(alpha: np.ndarray, own: np.ndarray, information: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pulls opacities and colors toward common colors.

    Args:
      alpha: float64 `[P]`, opacity of the mark's pixels, above 0.
      own: float64 `[P, 3]`, color times alpha.
      information: float64 `[P, 4, 4]`, inverse covariance of alpha and the three channels of `own`.

    Returns:
      The adjusted alpha and own.
    """
    alpha = np.maximum(alpha, 1e-3)
    color = own / alpha[:, None]
    covariance = np.linalg.inv(information)
    error = (
        np.diagonal(covariance, axis1=1, axis2=2)[:, 1:]
        - 2 * color * covariance[:, 0, 1:]
        + color**2 * covariance[:, :1, 0]
    ) / alpha[:, None] ** 2
    usual, spread = _means_of_like(color, np.maximum(error, 1e-6), np.full(3, _ALIKE))
    spread = np.maximum(spread, _LEAST_SPREAD**2)
    # Derivative of b - c a with respect to a and the three channels of b.
    along = np.concatenate([-usual[:, None], np.broadcast_to(np.eye(3), (len(alpha), 3, 3))], 1)
    precision = 1 / (spread * alpha[:, None] ** 2)
    off = (own - usual * alpha[:, None]) * precision
    change = np.linalg.solve(
        information + np.einsum("pic,pc,pjc->pij", along, precision, along),
        -np.einsum("pic,pc->pi", along, off)[..., None],
    )[..., 0]
    against = np.einsum("pi,pij,pj->p", change, information, change)
    change *= (np.clip((_OPAQUE - alpha) / _TAPER, 0, 1) / (1 + (against / _AGAINST) ** 2))[:, None]
    return alpha + change[:, 0], own + change[:, 1:]


def toward_usual_looks(
    alpha: np.ndarray, own: np.ndarray, information: np.ndarray, grey: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pulls pixels toward common combinations of opacity and color, because strokes are flat.

    Args:
      alpha: float64 `[P]`, opacity of the mark's pixels, above 0.
      own: float64 `[P, 3]`, color times alpha.
      information: float64 `[P, 4, 4]`, inverse covariance of alpha and the three channels of `own`.
      grey: float64 `[3]`, the average color beneath marks; their look on it is independent of alpha.

    Returns:
      The adjusted alpha and own.
    """
    looks = np.concatenate([alpha[:, None], own - alpha[:, None] * grey], 1)
    turn = np.eye(4)
    turn[1:, 0] = grey
    there = turn.T @ information @ turn
    error = np.diagonal(np.linalg.inv(there), axis1=1, axis2=2)
    shows = np.maximum(1 - alpha, 0.02)[:, None] * np.array([_FLAT_ALPHA, *3 * [_FLAT_LEVEL]])
    usual, spread = _means_of_like(looks, error, np.array([_FLAT_ALPHA, *3 * [_FLAT_LEVEL]]))
    precision = np.eye(4) / np.maximum(spread, shows**2)[:, None]
    change = np.linalg.solve(there + precision, precision @ (usual - looks)[..., None])[..., 0]
    against = np.einsum("pi,pij,pj->p", change, there, change)
    change *= (np.clip((_OPAQUE_LOOKS - alpha) / _TAPER, 0, 1) / (1 + (against / _AGAINST) ** 2))[:, None]
    looks = looks + change
    return looks[:, 0], looks[:, 1:] + looks[:, :1] * grey


def _means_of_like(values: np.ndarray, error: np.ndarray, alike: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Computes, for each value, the mean of similar values and their variance beyond their errors.

    Args:
      values: float64 `[P, K]`, colors or looks.
      error: float64 `[P, K]`, variances of the values.
      alike: float64 `[K]`, distance within which exact values would be similar.

    Returns:
      Means and variances, float64 `[P, K]` each.
    """
    sample = np.unique(np.linspace(0, len(values) - 1, min(_SAMPLE, len(values))).astype(int))
    others, others_error = values[sample], error[sample]
    weight = 1 / (others_error / alike**2 + 1).sum(1)
    means, spreads = np.zeros_like(values), np.zeros_like(values)
    for start in range(0, len(values), _CHUNK):
        part = slice(start, start + _CHUNK)
        width = _WIDTH * error[part] + alike**2
        distance = (
            (values[part] ** 2 / width).sum(1)[:, None]
            - 2 * (values[part] / width) @ others.T
            + (1 / width) @ (others**2).T
        )
        kernel = np.exp(-0.5 * np.maximum(distance, 0)) * weight + 1e-12
        kernel /= kernel.sum(1, keepdims=True)
        means[part] = kernel @ others
        beyond = kernel @ others**2 - means[part] ** 2 - kernel @ others_error
        spreads[part] = np.maximum(beyond, 0)
    return means, spreads
