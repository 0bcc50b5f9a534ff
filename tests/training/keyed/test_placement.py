"""A canvas in a picture's frame is what Pillow makes of the same transformation."""

import math

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.marks import CANVASES, placed
from training.keyed import canvas_features, placement

pytestmark = pytest.mark.slow


def _over_picture(layer, corner, scale=1.0, rotation=0.0, size=(120, 150), is_sharp=False):
    where = placement.Placement(*(tf.constant(value, tf.float32) for value in (corner, scale, rotation)))
    return placement.over_picture(tf.constant(layer), where, tf.constant(size), is_sharp).numpy()


@pytest.fixture(scope="module")
def layer():
    return canvas_features.premultiplied(np.asarray(CANVASES["one stamp"]))


@pytest.mark.parametrize("corner", [(30, -20), (-10, 40), (90, 120), (-200, 0)])
def test_whole_pixels_are_the_canvas_itself(layer, corner):
    np.testing.assert_array_equal(_over_picture(layer, corner), placed(layer, corner, 120, 150))


@pytest.mark.parametrize("scale", [0.5, 0.73, 1.4, 2.0])
def test_scaling_is_pillows(layer, scale):
    height, width = (round(scale * size) for size in layer.shape[:2])
    # The size that Pillow scales to is whole: where it rounds, the picture's edge shows it.
    channels = [Image.fromarray(layer[..., k]).resize((width, height), Image.Resampling.BICUBIC) for k in range(4)]
    expected = placed(np.clip(np.stack(channels, axis=-1), 0, 1), (5, 8), 120, 150)
    found = _over_picture(layer, (5.0, 8.0), scale)
    assert np.abs(found - expected).mean() < 0.01
    assert np.abs(found - expected).max() < 0.3


def test_enlarging_sharply_is_pillows(layer):
    scale = 2.0  # at which the size that Pillow scales to is the same
    height, width = (round(scale * size) for size in layer.shape[:2])
    channels = [Image.fromarray(layer[..., k]).resize((width, height), Image.Resampling.BICUBIC) for k in range(4)]
    expected = placed(np.clip(np.stack(channels, axis=-1), 0, 1), (5, 8), 120, 150)
    found = _over_picture(layer, (5.0, 8.0), scale, is_sharp=True)
    # Beyond its border Pillow leaves the canvas out, and here it is transparent there.
    inside = np.s_[5 + 8 : 5 + height - 8, 8 + 8 :]
    np.testing.assert_allclose(found[inside], expected[inside], atol=0.01)
    blurred = _over_picture(layer, (5.0, 8.0), scale)
    assert np.abs(blurred[inside] - expected[inside]).max() > 0.05


@pytest.mark.parametrize("degrees", [-3.0, 2.0])
def test_turning_is_pillows(layer, degrees):
    # Pillow turns about the canvas's own corner where it is told to, counter-clockwise.
    big = placed(layer, (60, 40), 240, 300)
    channels = [
        Image.fromarray(big[..., k]).rotate(degrees, Image.Resampling.BILINEAR, center=(40, 60)) for k in range(4)
    ]
    expected = np.stack(channels, axis=-1)
    found = _over_picture(layer, (60.0, 40.0), 1.0, math.radians(degrees), (240, 300))
    assert np.abs(found - expected).max() < 0.02


def test_half_pixels_are_averages(layer):
    found = _over_picture(layer, (10.5, 20.0))
    whole = placed(layer, (10, 20), 120, 150), placed(layer, (11, 20), 120, 150)
    np.testing.assert_allclose(found, (whole[0] + whole[1]) / 2, atol=1e-5)
