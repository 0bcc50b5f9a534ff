"""What the repair network learns from is the mark's own blend, inverted as well as its place is known."""

import math

import ml_collections
import numpy as np
import pytest
import tensorflow as tf

from configs import repair
from training import corruption, models
from training.keyed import lesson

pytestmark = pytest.mark.slow

_SPEC = "watermark:canvas={},layout=tile,opacity=0.6..0.9,scale=0.8..1.2"


@pytest.fixture
def spec(canvas_path):
    return _SPEC.format(canvas_path)


def _source(spec, clean, **fields):
    config = ml_collections.ConfigDict({"after": "", "misfit": 0.0, "shift": 0.3, "opacity_error": 0.02, **fields})
    seeds = tf.constant([[7, k] for k in range(len(clean))], tf.int32)
    source, alpha = lesson.keyed_source(spec, config)(tf.constant(clean), seeds)
    return source.numpy(), alpha.numpy()


@pytest.fixture
def clean(crops):
    return crops[:6, :96, :96].astype(np.float32) / 255


def test_a_layer_is_what_the_overlay_lays(spec, clean):
    seeds = tf.constant([[3, k] for k in range(len(clean))], tf.int32)
    layer = corruption.build_layer(spec)(tf.constant(clean), seeds).numpy()
    laid, alpha = corruption.build(spec)(tf.constant(clean), seeds)
    np.testing.assert_allclose(layer[..., 3:], alpha, atol=1e-6)
    np.testing.assert_allclose(clean * (1 - layer[..., 3:]) + layer[..., :3], laid, atol=0.501 / 255)


def test_what_is_read_follows_its_definition():
    rng = np.random.default_rng(0)
    picture, color, alpha = rng.random((5, 7, 3)), rng.random((5, 7, 3)), rng.random((5, 7, 1)) * 0.95
    alpha[0, 0], opacity = 0.0, 0.8
    read = lesson.repair_input(
        tf.constant(picture, tf.float32), tf.constant(np.concatenate([alpha * color, alpha], -1), tf.float32), opacity
    ).numpy()
    shows = 1 - opacity * alpha
    inverted = np.clip((picture - opacity * alpha * color) / shows, 0, 1)
    expected = np.concatenate([inverted, picture, opacity * alpha, 1 - np.log(shows) / math.log(0.02)], -1)
    np.testing.assert_allclose(read, expected, atol=1e-5)
    assert read[0, 0, 7] == 1.0


def test_without_misfits_inversion_leaves_only_rounding(spec, clean):
    source, alpha = _source(spec, clean)
    assert (alpha > 0.3).mean() > 0.05
    off = np.abs(source[..., :3] - clean) * (1 - alpha)
    assert off.max() < 0.6 / 255
    np.testing.assert_array_equal(source[..., :3][alpha[..., 0] == 0], source[..., 3:6][alpha[..., 0] == 0])


@pytest.mark.parametrize("fields", [{"misfit": 1.0}, {"after": "jpeg:quality=80..90"}])
def test_misfits_and_jpeg_are_what_is_left_to_repair(spec, clean, fields):
    source, alpha = _source(spec, clean, **fields)
    error = np.abs(source[..., :3] - clean)[alpha[..., 0] > 0.3]
    assert 2 / 255 < error.mean() < 40 / 255


def test_a_moved_layer_is_the_interpolated_one():
    layer = np.random.default_rng(1).random((2, 6, 5, 4)).astype(np.float32)
    moved = lesson._moved(tf.constant(layer), tf.constant([[0.25, 0.0], [0.0, -0.4]])).numpy()
    np.testing.assert_allclose(moved[0, 1:], 0.75 * layer[0, 1:] + 0.25 * layer[0, :-1], rtol=1e-5)
    np.testing.assert_allclose(moved[1, :, :-1], 0.6 * layer[1, :, :-1] + 0.4 * layer[1, :, 1:], rtol=1e-5)


def test_a_repair_network_learns_what_inversion_leaves(spec, clean):
    config = repair.get_config()
    config.model.features, config.model.blocks = (16, 24), (1, 1)
    model = models.build(config)
    source, alpha = _source(spec, clean, after="jpeg:quality=60..80")
    covered, optimizer = alpha > corruption.COVERED, tf.keras.optimizers.Adam(3e-3)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            error = tf.reduce_sum(tf.where(covered, tf.abs(model.network(source) - clean), 0.0))
        variables = model.network.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(error, variables), variables))
        return error

    first, *_, last = [step() for _ in range(60)]
    assert last < 0.85 * first
    repaired = model.network(source).numpy()
    np.testing.assert_array_equal(repaired[alpha[..., 0] == 0], source[..., :3][alpha[..., 0] == 0])
