"""The network starts as the identity, compiles, and depends on no more than its halo."""

import numpy as np
import pytest
import tensorflow as tf

from configs import default
from configs.command_line import UserError
from training import models


def _randomised(restorer):
    """Gives every weight a value, so that nothing is hidden behind a zero-initialised layer."""
    rng = np.random.default_rng(0)
    for variable in restorer.network.trainable_variables:
        variable.assign(rng.normal(0, 0.05, variable.shape))
    return restorer


def _small():
    config = default.get_config()
    config.model.features, config.model.blocks = (4, 6, 8), (1, 1, 2)
    return models.build(config)


def test_an_untrained_network_returns_its_input(astronaut):
    picture = tf.constant(astronaut[None, :64, :96] / 255.0, tf.float32)
    np.testing.assert_allclose(_small().network(picture), picture, atol=1e-6)


def test_the_same_seed_gives_the_same_weights():
    for one, other in zip(_small().network.weights, _small().network.weights):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("axis", [1, 2])
def test_an_output_pixel_depends_on_its_halo_and_not_beyond(axis):
    restorer = _randomised(_small())
    side = 2 * restorer.halo + 4 * restorer.stride
    side += -side % restorer.stride
    reach = 0
    rng = np.random.default_rng(1)
    picture = tf.constant(rng.random((1, side, side, 3)), tf.float32)
    for shift in range(restorer.stride):  # where a pixel stands within the stride matters
        pixel = side // 2 + shift
        with tf.GradientTape() as tape:
            tape.watch(picture)
            output = restorer.network(picture)[0, pixel, pixel, 0]
        influence = np.abs(tape.gradient(output, picture).numpy()[0]).sum(-1)
        touched = np.nonzero(influence.sum(axis=2 - axis))[0]
        reach = max(reach, pixel - touched.min(), touched.max() - pixel)
    assert reach <= restorer.halo
    assert reach >= restorer.halo - restorer.stride, "a halo wider than needed wastes every tile's border"


def test_the_network_and_its_gradients_compile_under_xla():
    restorer = _randomised(_small())
    picture = tf.random.stateless_uniform([1, 32, 32, 3], [0, 1])

    def loss_and_gradients():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.abs(restorer.network(picture) - 0.5))
        return loss, tape.gradient(loss, restorer.network.trainable_variables)

    plain, compiled = (tf.function(loss_and_gradients, jit_compile=jit)() for jit in (False, True))
    np.testing.assert_allclose(plain[0], compiled[0], rtol=1e-4)
    for one, other in zip(plain[1], compiled[1]):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_an_unknown_model_is_named():
    config = default.get_config()
    config.model.name = "transformer"
    with pytest.raises(UserError, match="'transformer'"):
        models.build(config)
