"""Scale and angle are found without being known."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tests.marks import CANVASES
from training.keyed import canvas_features, finder, placement


@pytest.mark.parametrize(
    ("name", "corner", "scale", "degrees"),
    [("white and dark", (-150.0, -90.0), 1.37, -2.0), ("one stamp", (60.0, 30.0), 0.8, 1.0)],
)
def test_an_unknown_scale_and_angle_are_found(crops, name, corner, scale, degrees):
    canvas = np.asarray(CANVASES[name])
    layer = canvas_features.premultiplied(canvas)
    true = placement.Placement(*(tf.constant(value, tf.float32) for value in (corner, scale, math.radians(degrees))))
    over = placement.over_picture(tf.constant(layer), true, tf.constant([256, 256])).numpy()
    found = tf.function(finder.Finder(canvas, (0.7, 1.5), (-3.0, 3.0)).first)

    right = 0
    for clean in crops[:5]:
        laid = np.round((clean / 255 * (1 - 0.9 * over[..., 3:]) + 0.9 * over[..., :3]) * 255)
        match = found(tf.constant(laid, tf.uint8))
        where = match.placement
        again = placement.over_picture(tf.constant(layer), where, tf.constant([256, 256])).numpy()
        right += bool(np.abs(again - over)[..., 3].sum() < 0.15 * over[..., 3].sum() and float(match.score) > 20)
        assert float(where.scale) == pytest.approx(scale, rel=0.005)
    assert right == 5
