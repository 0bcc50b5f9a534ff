"""Each optimizer steps as its paper says, on one replica and on two."""

import numpy as np
import pytest
import tensorflow as tf

from common.command_line import UserError
from configs import default
from training.distributed import devices
from training.optimizers import Optimizer
from training.run.averaging import WeightAverage


def _config(**fields):
    config = default.get_config()
    config.update(fields)
    return config


def _reference(name, value, gradients, rate, decay):
    """Adam, AdamW and LAMB in NumPy."""
    m = v = np.zeros_like(value)
    for step, gradient in enumerate(gradients, start=1):
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        update = (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + (1e-6 if name == "lamb" else 1e-7))
        if name == "adamw":
            value = value - rate * decay * value
        if name == "lamb":
            update = update + decay * value
            update = update * np.linalg.norm(value) / np.linalg.norm(update)
        value = value - rate * update
    return value


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize(("name", "decay"), [("adam", 0.0), ("adamw", 0.02), ("lamb", 0.02)])
def test_steps_are_those_of_the_paper(name, decay, replicas):
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0") if replicas == 1 else devices.mirrored_strategy()
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=5).astype(np.float32), rng.normal(size=(4, 5)).astype(np.float32)
    with strategy.scope():
        variable = tf.Variable(start)
        optimizer = Optimizer(_config(optimizer=name, weight_decay=decay), [variable])

    @tf.function
    def step(gradient, rate):
        optimizer.set_learning_rate(rate)
        strategy.run(lambda: optimizer.apply([gradient]))

    for gradient in gradients:
        step(tf.constant(gradient), tf.constant(0.01))
    found = strategy.experimental_local_results(variable)
    assert len(found) == replicas
    for value in found:
        np.testing.assert_allclose(value, _reference(name, start, gradients, 0.01, decay), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("name", ["adam", "adamw", "lamb"])
def test_a_scaled_loss_leaves_out_steps_that_overflow(name, replicas):
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0") if replicas == 1 else devices.mirrored_strategy()
    start = np.float32([1.0, -2.0])
    with strategy.scope():
        variable = tf.Variable(start)
        optimizer = Optimizer(_config(optimizer=name), [variable], "float16")

    def replica_step(slope):
        with tf.GradientTape() as tape:
            loss = optimizer.scaled(tf.reduce_sum(slope * variable))
        gradients = optimizer.unscaled(tape.gradient(loss, [variable]))
        optimizer.apply(gradients)
        return gradients[0]

    @tf.function
    def step(slope):
        optimizer.set_learning_rate(tf.constant(0.01))
        return strategy.experimental_local_results(strategy.run(replica_step, args=(slope,)))[0]

    scale = optimizer.loss_scale().numpy()
    step(tf.constant(np.inf))
    np.testing.assert_array_equal(variable.numpy(), start)
    assert optimizer.loss_scale().numpy() == scale / 2

    np.testing.assert_allclose(step(tf.constant(0.25)), [0.25, 0.25])
    expected = _reference(name, start, [np.float32([0.25, 0.25])], 0.01, 0.0)
    if name != "lamb":  # the count of steps includes the one left out; LAMB's step has its own length, and hides it
        m, v = 0.1 * 0.25 / (1 - 0.9**2), 0.001 * 0.25**2 / (1 - 0.999**2)
        expected = start - 0.01 * m / (np.sqrt(v) + 1e-7)
    for value in strategy.experimental_local_results(variable):
        np.testing.assert_allclose(value, expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("fields", "words"), [({"optimizer": "sgd"}, "'sgd'.*lamb"), ({"weight_decay": 0.1}, "adam has none.*adamw")]
)
def test_what_is_no_optimizer_is_named(fields, words):
    with pytest.raises(UserError, match=words):
        Optimizer(_config(**fields), [tf.Variable(0.0)])


@pytest.mark.parametrize("replicas", [1, 2])
def test_the_average_follows_and_swaps_with_the_weights(replicas):
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0") if replicas == 1 else devices.mirrored_strategy()
    with strategy.scope():
        weight = tf.Variable([1.0, 2.0])
        average = WeightAverage([weight], 0.75)

    @tf.function
    def step(number):
        strategy.run(lambda: weight.assign_add([1.0, -1.0]))
        with strategy.scope():
            average.update(number)

    expected, value = np.array([1.0, 2.0]), np.array([1.0, 2.0])
    for number in range(40):
        step(tf.constant(number))
        value = value + [1.0, -1.0]
        decay = min(0.75, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * value
    with average.swapped():
        np.testing.assert_allclose(weight.numpy(), expected, rtol=1e-5)
    np.testing.assert_array_equal(weight.numpy(), value)


def test_without_decay_there_is_no_average():
    weight = tf.Variable(1.0)
    average = WeightAverage([weight], 0.0)
    average.update(tf.constant(3))
    with average.swapped():
        assert weight.numpy() == 1.0
    assert average.averages == []
