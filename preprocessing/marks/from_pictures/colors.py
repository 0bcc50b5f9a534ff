"""Marks have few colours: what that says about opacity, where pictures alone leave it open.

How a mark changes a picture of middle brightness is known far better than how the change depends on brightness, which
is what tells opacity from colour. If the colour is known from elsewhere in the mark, both are. Each pixel's colour is
therefore drawn to the mean of those like it, mean shift (Comaniciu and Meer, PAMI 2002) with a kernel as wide as its
own error, and as strongly as these vary little beyond their errors: a mark whose colours run into each other stays so.
"""

from __future__ import annotations

import numpy as np

# Levels: colours are alike that are no further apart, and are not known better than that.
_ALIKE, _LEAST_SPREAD = 3.0, 1.5
# Flat strokes' alpha, and how they look on grey in levels, vary by so much.
_FLAT_ALPHA, _FLAT_LEVEL = 0.002, 0.4
# Of a kernel, in variances of what it is laid around.
_WIDTH = 4.0
# Of chi squared with four degrees of freedom: what pictures contradict so much is another colour.
_AGAINST = 12.0
# Beneath opaque strokes, a level by which the usual is wrong is many of the picture's. Alpha from which on pictures
# alone decide on colours, and on looks, and how far below that they begin to.
_OPAQUE, _OPAQUE_LOOKS, _TAPER = 0.6, 0.8, 0.2
# Pixels that stand for all, and pixels that are compared with them at a time.
_SAMPLE, _CHUNK = 2000, 2000


def toward_usual(alpha: np.ndarray, own: np.ndarray, information: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draws opacities and colours to colours that are common.

    Args:
      alpha: float64 `[P]` of the mark's pixels, above 0.
      own: float64 `[P, 3]`, colour times alpha.
      information: float64 `[P, 4, 4]`, inverse covariance of alpha and the three.

    Returns:
      Both, changed.
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
    # b - c a, by a and the three b.
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
    """Draws pixels to the opacity and colour that are common together: strokes are flat.

    Args:
      alpha, own, information: see `toward_usual`.
      grey: float64 `[3]`, of what lies beneath the marks on average: how they look on it is independent of alpha.

    Returns:
      Both, changed.
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
    """Of values like each: their mean, and their variance beyond their errors.

    Args:
      values: float64 `[P, K]`, colours or looks.
      error: float64 `[P, K]`, their variances.
      alike: float64 `[K]`, how far apart values may be and still be alike, were they exact.

    Returns:
      Two float64 `[P, K]`.
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
