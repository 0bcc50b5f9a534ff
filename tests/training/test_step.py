"""The compiled step: what it computes, and that neither XLA nor the number of replicas changes it."""

import numpy as np
import pytest
import tensorflow as tf

from common.command_line import UserError
from configs import default
from training import corruption, models, step
from training.data import pairs
from training.distributed import devices
from training.optimizers import Optimizer

pytestmark = pytest.mark.slow


def _config(canvas_path, **fields):
    config = default.get_config()
    config.source = f"watermark:canvas={canvas_path}"
    config.model.features, config.model.blocks = (4, 6), (1, 1)
    config.batch_size, config.data.crop = 4, 32
    config.update_from_flattened_dict(fields)
    return config


def _crops(astronaut, count):
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 480, (count, 2))
    return np.stack([astronaut[y : y + 32, x : x + 32] for y, x in corners])


def _train(config, astronaut, steps, replicas=1, jit=False, corrupt_on="device", compute_dtype="float32"):
    """Runs a few steps; returns losses and the weights after them."""
    if replicas == 1:
        strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    else:
        strategy = devices.mirrored_strategy()
        assert strategy.num_replicas_in_sync == replicas
    with strategy.scope():
        model = models.build(config, compute_dtype)
        network = model.network
        optimizer = Optimizer(config, network.trainable_variables, compute_dtype)
        # Adam's first steps turn a gradient that is rounding noise into a full step; this epsilon does not.
        getattr(optimizer.keras, "inner_optimizer", optimizer.keras).epsilon = 1e-4
    train_step = step.make_train_step(strategy, model, optimizer, config, jit, corrupt_on)
    crops = _crops(astronaut, 4 * steps)
    batches = tf.data.Dataset.from_tensor_slices(crops).batch(4, drop_remainder=True)
    if corrupt_on == "host":
        batches = pairs.overlaid_on_host(batches, config)
    losses = [
        float(train_step(images, tf.constant(number, tf.int64), tf.constant(0.0), tf.constant(1e-3))["loss"])
        for number, images in enumerate(strategy.experimental_distribute_dataset(batches))
    ]
    return losses, [variable.numpy() for variable in network.trainable_variables]


@pytest.mark.parametrize("target", ["same", "clean"])
def test_the_loss_of_the_identity_is_what_numpy_computes(canvas_path, astronaut, target):
    config = _config(canvas_path, target=target, covered_weight=1.5)
    losses, _ = _train(config, astronaut, 1)

    crops = tf.constant(_crops(astronaut, 4) / 255.0, tf.float32)
    corrupt = corruption.build(config.source)
    draw = [corrupt(crops, corruption.picture_seeds(0, tf.constant(0), stream, 4)) for stream in (0, 1)]
    (source, covered), (other, alpha) = ([part.numpy() for part in pair] for pair in draw)
    if target == "clean":
        other, alpha = crops.numpy(), np.zeros_like(alpha)
    weights = (1.0 + 1.5 * (covered > 0.02)) * (alpha == 0)
    per_picture = [
        np.average(np.abs(one - two).mean(-1), weights=weight[..., 0])
        for one, two, weight in zip(source, other, weights)
    ]
    assert losses[0] == pytest.approx(np.mean(per_picture), rel=1e-5)


@pytest.mark.parametrize("jit", [False, True])
def test_two_replicas_learn_what_one_does(canvas_path, astronaut, jit):
    # Where source and target agree, the absolute error has a kink that rounding decides; the square has none.
    config = _config(canvas_path, loss="mse")
    one, one_weights = _train(config, astronaut, 50, replicas=1, jit=jit)
    two, two_weights = _train(config, astronaut, 50, replicas=2, jit=jit)
    np.testing.assert_allclose(one, two, rtol=1e-4)
    for single, mirrored in zip(one_weights, two_weights):
        np.testing.assert_allclose(single, mirrored, atol=2e-3)


@pytest.mark.parametrize("compute_dtype", ["float16", "bfloat16"])
def test_half_precision_learns_what_float32_does(canvas_path, astronaut, compute_dtype):
    config = _config(canvas_path)
    single, single_weights = _train(config, astronaut, 8)
    half, half_weights = _train(config, astronaut, 8, compute_dtype=compute_dtype)
    assert {weights.dtype for weights in half_weights} == {np.dtype(np.float32)}
    assert half != single  # it is another precision
    np.testing.assert_allclose(half, single, rtol=0.01)


@pytest.mark.parametrize("replicas", [1, 2])
def test_overlaying_on_the_host_learns_what_the_device_does(canvas_path, astronaut, replicas):
    config = _config(canvas_path)
    device, device_weights = _train(config, astronaut, 4)
    host, host_weights = _train(config, astronaut, 4, replicas, corrupt_on="host")
    np.testing.assert_allclose(device, host, rtol=1e-4)
    for one, other in zip(device_weights, host_weights):
        np.testing.assert_allclose(one, other, atol=2e-4)


def test_xla_learns_what_the_plain_graph_does(canvas_path, astronaut):
    # Where source and target agree, the absolute error has a kink that rounding decides; the square has none.
    config = _config(canvas_path, loss="mse")
    plain, _ = _train(config, astronaut, 8)
    compiled, _ = _train(config, astronaut, 8, jit=True)
    np.testing.assert_allclose(plain, compiled, rtol=1e-4)


def test_an_uneven_batch_an_unknown_loss_and_a_missing_source_are_named(canvas_path):
    strategy = devices.mirrored_strategy()
    for fields, words in [
        ({"batch_size": 5}, "batch_size=5 .* 2 replicas"),
        ({"loss": "huber"}, "'huber'"),
        ({"source": ""}, "config.source is empty"),
    ]:
        with pytest.raises(UserError, match=words):
            step.make_train_step(strategy, None, None, _config(canvas_path, **fields), False)
