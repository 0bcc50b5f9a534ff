"""A run starts from the weights of another one, or from those of an export."""

import numpy as np
import pytest
import tensorflow as tf

from common.command_line import UserError
from configs import default
from serving.export import export
from training import loop, models
from training.run import initial_weights

pytestmark = pytest.mark.slow


def _config(dataset, canvas_path, **fields):
    config = default.get_config()
    config.data.dir, config.data.crop, config.data.shuffle_crops = str(dataset), 48, 64
    config.source = f"watermark:canvas={canvas_path}"
    config.model.features, config.model.blocks = (6, 8), (1, 1)
    config.batch_size, config.steps, config.val_crops, config.val_crop = 4, 3, 2, 64
    config.eval_every = config.checkpoint_every = config.log_every = 3
    config.update_from_flattened_dict(fields)
    return config


def _train(config, workdir):
    return loop.train_and_evaluate(config, str(workdir), tf.distribute.OneDeviceStrategy("/cpu:0"), False)


@pytest.fixture(scope="module")
def trained(dataset, canvas_path, tmp_path_factory):
    """A workdir and its export; its learning rate was high enough to leave the identity far behind."""
    folder = tmp_path_factory.mktemp("trained")
    _train(_config(dataset, canvas_path, learning_rate=0.05, warmup=0.0), folder / "run")
    export(str(folder / "run"), str(folder / "export"))
    return folder


@pytest.mark.parametrize("source", ["run", "export", "export/1"])
def test_a_run_starts_where_another_ended(trained, source, dataset, canvas_path, tmp_path, astronaut):
    config = _config(dataset, canvas_path, init=str(trained / source), learning_rate=0.0)
    _train(config, tmp_path)
    network = models.build(config).network
    initial_weights.load(network, str(tmp_path))
    picture = tf.constant(astronaut[None, :64, :96])
    expected = tf.saved_model.load(str(trained / "export" / "1")).signatures["restore"](images=picture)["restored"]
    found = tf.clip_by_value(network(tf.cast(picture, tf.float32) / 255.0), 0.0, 1.0) * 255.0
    assert np.abs(expected.numpy().astype(int) - picture.numpy()).max() > 3
    np.testing.assert_allclose(found, expected.numpy(), atol=0.51)


def test_what_does_not_fit_is_named(trained, dataset, canvas_path, tmp_path):
    with pytest.raises(UserError, match="config.init=nowhere: neither an export nor"):
        _train(_config(dataset, canvas_path, init="nowhere"), tmp_path)
    other = _config(dataset, canvas_path, init=str(trained / "export"), **{"model.features": (8, 8)})
    with pytest.raises(UserError, match="is of another network than config.model"):
        _train(other, tmp_path)
