"""Scale and angle are found without being known, near enough for a refinement."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tests.marks import CANVASES
from training.keyed import canvas_features, placement, refine, search


@pytest.mark.parametrize(
    ("name", "corner", "scale", "degrees"),
    [("white and dark", (-150.0, -90.0), 1.37, -2.0), ("one stamp", (60.0, 30.0), 0.8, 1.0)],
)
def test_an_unknown_scale_and_angle_are_found(crops, name, corner, scale, degrees):
    layer = canvas_features.premultiplied(np.asarray(CANVASES[name]))
    features = {
        level: canvas_features.canvas_features(canvas_features.shrunk(layer, level), canvas_features.spanning(layer))
        for level in (search.COARSE, search.FINE)
    }
    true = placement.Placement(*(tf.constant(value, tf.float32) for value in (corner, scale, math.radians(degrees))))
    over = placement.over_picture(tf.constant(layer), true, tf.constant([256, 256])).numpy()
    scales, angles = search.scales_to_try(0.7, 1.5), search.angles_to_try(-3.0, 3.0)

    @tf.function
    def found(picture):
        hypotheses = scales, angles
        for level in (search.COARSE, search.FINE):
            _, starts = search.search(picture, features[level], level, layer.shape[:2], *hypotheses, best=1)
            start = placement.Placement(*(part[0] for part in starts))
            hypotheses = search.around(start.scale, start.rotation)
        return refine.refine(picture, tf.constant(layer), start, rigid=False, steps=5)

    right = 0
    for clean in crops[:5]:
        laid = np.round((clean / 255 * (1 - 0.9 * over[..., 3:]) + 0.9 * over[..., :3]) * 255) / 255
        match = found(tf.constant(laid, tf.float32))
        where = match.placement
        again = placement.over_picture(tf.constant(layer), where, tf.constant([256, 256])).numpy()
        right += bool(np.abs(again - over)[..., 3].sum() < 0.15 * over[..., 3].sum() and float(match.score) > 20)
        assert float(where.scale) == pytest.approx(scale, rel=0.005)
    assert right == 5
