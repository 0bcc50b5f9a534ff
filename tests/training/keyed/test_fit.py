"""The fitted opacity is the one a canvas was laid with, and inversion gives back the picture."""

import numpy as np
import pytest
import tensorflow as tf

from tests.marks import CANVASES, corner_for, lay, placed
from training.keyed import blend, canvas_features, fit

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("jpeg", "tolerance"), [(None, 0.005), (90, 0.02)])
def test_the_opacity_is_found(mark, crops, jpeg, tolerance):
    rng, errors = np.random.default_rng(2), []
    for clean in crops:
        corner, opacity = corner_for(mark, 256, rng), rng.uniform(0.25, 1.0)
        laid, _ = lay(clean, mark, corner, opacity, jpeg)
        found = fit.fit(
            tf.constant(laid / np.float32(255)),
            tf.constant(placed(canvas_features.premultiplied(mark), corner, 256, 256)),
            is_exact=jpeg is None,
        )
        errors.append(float(found.opacity) - opacity)
    assert np.median(np.abs(errors)) < tolerance, np.round(errors, 3)
    # A dark mark on a night sky leaves nothing to measure.
    assert np.sort(np.abs(errors))[-2] < 3 * tolerance, np.round(errors, 3)


@pytest.mark.parametrize(("jpeg", "tolerance"), [(None, 0.01), (90, 0.03)])
@pytest.mark.parametrize("gain", [(1.0, 1.0, 1.0), (0.9, 1.0, 0.75)])
def test_the_gain_of_a_mark_s_colour_is_found(crops, gain, jpeg, tolerance):
    mark, rng, errors = np.asarray(CANVASES["white and dark"]), np.random.default_rng(4), []
    colored = np.rint(mark * np.array([*gain, 1.0])).astype(np.uint8)
    for clean in crops[:5]:
        corner, opacity = corner_for(mark, 256, rng), rng.uniform(0.6, 1.0)
        laid, _ = lay(clean, colored, corner, opacity, jpeg)
        layer = tf.constant(placed(canvas_features.premultiplied(mark), corner, 256, 256))
        found = fit.fit(tf.constant(laid / np.float32(255)), layer, is_exact=jpeg is None)
        errors.append([*(found.gain.numpy() - gain), float(found.opacity) - opacity])
    if max(gain) == min(gain):
        assert not np.array(errors)[:, :3].any(), np.round(errors, 3)
    assert np.median(np.abs(errors), axis=0).max() < tolerance, np.round(errors, 3)


def test_a_gain_that_the_ground_cannot_tell_is_not_fitted():
    mark = np.array(CANVASES["one stamp"])
    mark[..., :3] = 255
    for seed in range(6):
        rng = np.random.default_rng(seed)
        grain = rng.normal(0, 15, (256, 256, 1)) + rng.normal(0, 1, (256, 256, 3))
        clean = np.clip(np.rint(120 + grain), 0, 255).astype(np.uint8)
        corner, opacity = corner_for(mark, 256, rng), rng.uniform(0.6, 1.0)
        laid, _ = lay(clean, mark, corner, opacity, 90)
        layer = tf.constant(placed(canvas_features.premultiplied(mark), corner, 256, 256))
        found = fit.fit(tf.constant(laid / np.float32(255)), layer)
        np.testing.assert_array_equal(found.gain, 1)
        assert abs(float(found.opacity) - opacity) < 0.03


def test_inversion_gives_back_the_picture(crops):
    mark, clean = np.asarray(CANVASES["white and dark"]), crops[0].astype(np.float64)
    layer = canvas_features.premultiplied(mark)[100:356, 50:306]
    opacity = 0.7
    blended = clean / 255 * (1 - opacity * layer[..., 3:]) + opacity * layer[..., :3]
    blended, layer = (tf.constant(part, tf.float32) for part in (blended, layer))
    inverted = blend.invert(blended, layer, tf.constant(opacity))
    np.testing.assert_allclose(inverted.numpy() * 255, clean, atol=0.01)
