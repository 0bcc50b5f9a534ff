"""A fast number format is compared with float32 before the first step, and left where it is wrong."""

import logging

import numpy as np
import pytest
import tensorflow as tf

from common.command_line import UserError
from configs import default
from training import loop, models
from training.distributed import devices, precision
from training.distributed.workers import Team
from training.models import u_shape
from training.run import exportable
from training.validation import Validation, make_restore

pytestmark = pytest.mark.slow


def _config(dataset, canvas_path, **fields):
    config = default.get_config()
    config.data.dir, config.data.crop, config.data.shuffle_crops = str(dataset), 32, 32
    config.source = f"watermark:canvas={canvas_path}"
    config.model.features, config.model.blocks = (16, 24), (1, 1)
    config.batch_size, config.steps, config.log_every = 4, 4, 2
    config.eval_every = config.checkpoint_every = 4
    config.val_crops, config.val_crop = 2, 48
    config.data.deterministic = True
    config.update_from_flattened_dict(fields)
    return config


def _prove(config, wanted):
    team = Team(tf.distribute.OneDeviceStrategy("/cpu:0"))
    return precision.prove(config, wanted, team, replicas=1, jit_compile=False)


@pytest.fixture
def wrong_halving(monkeypatch):
    """The layer that halves a resolution, wrong by a fifth in any format but float32."""
    right = u_shape.Halving.call

    def call(self, x):
        outputs = right(self, x)
        return outputs if self.compute_dtype == "float32" else outputs * tf.cast(1.2, outputs.dtype)

    monkeypatch.setattr(u_shape.Halving, "call", call)


@pytest.mark.parametrize("name", ["unet", "nafnet", "srresnet"])
@pytest.mark.parametrize("mode", ["float16", "bfloat16"])
def test_rounding_alone_is_no_fault(dataset, canvas_path, name, mode):
    features, blocks = ((16,), (2,)) if name == "srresnet" else ((16, 24), (1, 1))
    fields = {"model.name": name, "model.features": features, "model.blocks": blocks}
    config = _config(dataset, canvas_path, **fields)
    fast, slow = models.build(config, mode), models.build(config)
    source = tf.random.stateless_uniform([4, 32, 32, 3], [1, 2])
    faults, largest = precision.find_faults(fast, slow, source, devices.Precision(mode, mode))
    assert faults == [] and largest > 1e-4


def test_a_wrong_convolution_is_caught_and_named(dataset, canvas_path, wrong_halving, caplog):
    config = _config(dataset, canvas_path)
    with caplog.at_level(logging.WARNING, logger="absl"):
        chosen = _prove(config, devices.Precision("bfloat16", "bfloat16"))
    assert chosen == devices.FLOAT32
    (line,) = [record.getMessage() for record in caplog.records]
    assert "Halving 16 -> 24, kernel 2x2" in line and "off by 0.2" in line and "computes in float32" in line
    assert precision.processor_name() in line


def test_a_format_that_was_asked_for_fails_with_that_line(dataset, canvas_path, wrong_halving, tmp_path):
    config = _config(dataset, canvas_path)
    asked = devices.choose_precision("float16")
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    with pytest.raises(UserError, match=r"--precision=float16: halving.* off by 0.2.*--precision=float32"):
        loop.train_and_evaluate(config, str(tmp_path / "run"), strategy, False, precision=asked)
    assert not (tmp_path / "run").exists()


def test_a_wrong_gradient_is_caught(dataset, canvas_path, monkeypatch):
    right = u_shape.Halving.call

    def call(self, x):
        if self.compute_dtype == "float32":
            return right(self, x)
        doubled = tf.grad_pass_through(lambda y: y)(x) + (x - tf.stop_gradient(x))  # the same values, twice the slope
        return right(self, doubled)

    monkeypatch.setattr(u_shape.Halving, "call", call)
    config = _config(dataset, canvas_path)
    with pytest.raises(UserError, match=r"gradient of its input is off by 1"):
        _prove(config, devices.Precision("float16", "float16", is_asked=True))


def test_a_run_that_falls_back_learns_what_float32_does(dataset, canvas_path, wrong_halving, tmp_path):
    config, strategy = _config(dataset, canvas_path), tf.distribute.OneDeviceStrategy("/cpu:0")
    wanted = {"float32": devices.FLOAT32, "auto": devices.Precision("bfloat16", "bfloat16")}
    for name, chosen in wanted.items():
        loop.train_and_evaluate(config, str(tmp_path / name), strategy, False, precision=chosen)
    one, other = (exportable.load(str(tmp_path / name)).network.get_weights() for name in wanted)
    for single, fallen_back in zip(one, other):
        np.testing.assert_allclose(single, fallen_back, atol=1e-5)


def test_validation_judges_the_network_in_float32(dataset, canvas_path, tmp_path):
    config, strategy = _config(dataset, canvas_path), tf.distribute.OneDeviceStrategy("/cpu:0")
    figures = loop.train_and_evaluate(
        config, str(tmp_path / "run"), strategy, False, precision=devices.choose_precision("float16")
    )
    trained = exportable.load(str(tmp_path / "run"))
    validation = Validation(config)
    again = validation.judge(make_restore(trained.network)(validation.source))
    assert figures["psnr"] == pytest.approx(again["psnr"], abs=1e-6)


def test_rewriting_holds_within_its_block():
    def option():
        return tf.config.optimizer.get_experimental_options().get("auto_mixed_precision_onednn_bfloat16", False)

    with devices.rewriting(True):
        assert option()
        with devices.rewriting(False):
            assert not option()
        assert option()
    assert not option()


def test_halving_is_the_strided_convolution():
    x = tf.random.stateless_normal([2, 14, 10, 5], [3, 4])
    halving, strided = u_shape.Halving(7), tf.keras.layers.Conv2D(7, 2, strides=2)
    halving.build(x.shape)
    strided.build(x.shape)
    assert [weight.shape for weight in halving.weights] == [weight.shape for weight in strided.weights]
    strided.set_weights(halving.get_weights())
    np.testing.assert_allclose(halving(x), strided(x), atol=1e-5)


def test_a_checkpoint_of_strided_convolutions_loads(monkeypatch, tmp_path):
    """Workdirs of 0.1, `pretrained/repair` among them, hold those of Keras's own layer."""
    config = default.get_config()
    config.model.features, config.model.blocks = (8, 12, 16), (1, 1, 1)
    source = tf.random.stateless_uniform([1, 32, 48, 3], [5, 6])
    with monkeypatch.context() as patch:
        older = lambda width: tf.keras.layers.Conv2D(width, 2, strides=2, kernel_initializer="he_normal")  # noqa: E731
        patch.setattr(u_shape, "Halving", older)
        network = models.build(config).network
    precision._draw_zero_kernels(network)
    optimizer = tf.keras.optimizers.Adam()
    optimizer.build(network.trainable_variables)
    saved = tf.train.Checkpoint(network=network, optimizer=optimizer).save(str(tmp_path / "ckpt"))

    config.seed += 1
    newer = models.build(config).network
    optimizer = tf.keras.optimizers.Adam()
    optimizer.build(newer.trainable_variables)
    tf.train.Checkpoint(network=newer, optimizer=optimizer).restore(saved).assert_consumed()
    np.testing.assert_allclose(newer(source), network(source), atol=1e-4)
