"""A placement that is a few pixels off is moved to where the canvas lies, between pixels too."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tests.marks import CANVASES
from training.keyed import block_matching, canvas_features, placement

pytestmark = pytest.mark.slow


def _at(corner, scale=1.0, degrees=0.0):
    return placement.Placement(
        tf.constant(corner, tf.float32), tf.constant(scale, tf.float32), tf.constant(math.radians(degrees), tf.float32)
    )


def _laid(clean, layer, where, opacity=0.8):
    over = placement.over_picture(layer, where, tf.constant(clean.shape[:2])).numpy().astype(np.float64)
    laid = clean / 255 * (1 - opacity * over[..., 3:]) + opacity * over[..., :3]
    return tf.constant(np.round(laid * 255) / 255, tf.float32)


@pytest.fixture(scope="module", params=["white and dark", "red", "one stamp"])
def layer(request):
    return tf.constant(canvas_features.premultiplied(np.asarray(CANVASES[request.param])))


def _corner(layer):
    return (-131.0, -97.0) if layer.shape[0] > 256 else (104.0, 20.0)


@pytest.mark.parametrize("off", [(3.0, -4.0), (0.0, 1.0)])
def test_whole_pixels_are_found_exactly(layer, crops, off):
    true = _corner(layer)
    for clean in crops[:6]:
        picture = _laid(clean, layer, _at(true))
        match = block_matching.refine(picture, layer, _at(np.add(true, off)), rigid=True)
        assert tuple(match.placement.corner.numpy()) == true
        assert match.score > 20
        assert 0.6 < match.opacity < 1.0


def test_between_pixels_it_is_right_to_a_tenth(layer, crops):
    true = np.add(_corner(layer), (0.4, -0.35))
    errors = []
    for clean in crops[:6]:
        found = block_matching.refine(
            _laid(clean, layer, _at(true)), layer, _at(np.round(true) + 1), rigid=True
        ).placement
        errors.append(np.abs(found.corner.numpy() - true).max())
    assert np.median(errors) < 0.1, np.round(errors, 3)


def test_scale_and_angle_are_found_from_nearby(crops):
    layer = tf.constant(canvas_features.premultiplied(np.asarray(CANVASES["white and dark"])))
    true, start = _at((-120.3, -80.7), 1.13, 1.2), _at((-120.3 + 2, -80.7 - 1), 1.125, 0.9)
    scales, angles = [], []
    for clean in crops[:6]:
        found = block_matching.refine(_laid(clean, layer, true), layer, start, rigid=False, steps=4).placement
        scales.append(float(found.scale) - 1.13)
        angles.append(math.degrees(float(found.rotation)) - 1.2)
    assert np.median(np.abs(scales)) < 0.001, np.round(scales, 4)
    assert np.median(np.abs(angles)) < 0.06, np.round(angles, 3)
