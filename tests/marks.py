"""Marks of several kinds, and laying them over pictures by NumPy."""

import io

import numpy as np
from PIL import Image

from preprocessing.marks import draw


def _field(**stamp):
    return draw.tile(draw.text_stamp("Sample", **stamp), size=600, gap=14, rotate=20)


CANVASES = {
    "white and dark": _field(size=24),
    "red": _field(size=24, color="#d01818", outline=0),
    "dark": _field(size=24, color="#101010", outline=0, opacity=0.8),
    "nearly opaque": _field(size=20, color="#ff9020", opacity=0.93),
    "one stamp": draw.text_stamp("Archive 1974", size=34),
}


def placed(canvas_layer, corner, height, width):
    """The part of a canvas [h, w, 4] that a picture shows where its top left corner lies at (y, x)."""
    layer = np.zeros((height, width, 4), np.float32)
    rows, columns = (np.arange(size) - start for size, start in zip((height, width), corner))
    inside = [(axis >= 0) & (axis < size) for axis, size in zip((rows, columns), canvas_layer.shape)]
    layer[np.ix_(*inside)] = canvas_layer[np.ix_(rows[inside[0]], columns[inside[1]])]
    return layer


def lay(clean, mark, corner, opacity, jpeg=None):
    """Lays a canvas, uint8 [h, w, 4], over a picture; returns that and where it is covered."""
    layer = placed(mark, corner, *clean.shape[:2])
    alpha = layer[..., 3:] / 255 * opacity
    laid = np.round(clean * (1 - alpha) + layer[..., :3] * alpha).astype(np.uint8)
    if jpeg:
        file = io.BytesIO()
        Image.fromarray(laid).save(file, "JPEG", quality=jpeg, subsampling=0)
        laid = np.asarray(Image.open(file))
    return laid, alpha[..., 0] > 0.02


def corner_for(canvas_rgba, side, rng):
    """A random place of the canvas: a field shows some part of itself, a stamp lies somewhere inside."""
    limits = [(size - side + 1, 0) if size >= side else (0, side - size + 1) for size in canvas_rgba.shape[:2]]
    return [int(rng.integers(-low, 1)) if low else int(rng.integers(0, high)) for low, high in limits]
