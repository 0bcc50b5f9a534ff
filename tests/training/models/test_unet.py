"""What is the U-Net's own; what every network is held to stands in test_models.py."""

import tensorflow as tf

from configs import default
from training import models


def _build(features, blocks):
    config = default.get_config()
    config.model.features, config.model.blocks = features, blocks
    return models.build(config)


def test_its_checkpoints_keep_their_layout(tmp_path):
    """Runs are exported by code that is newer than they are."""
    shapes = [
        (3, 3, 12, 4),  # stem, on the folded picture
        *[(3, 3, 4, 4)] * 2,  # a block
        (2, 2, 4, 6),  # down
        *[(3, 3, 6, 6)] * 2,
        (1, 1, 6, 16),  # up
        *[(3, 3, 4, 4)] * 2,
        (3, 3, 4, 28),  # head: three gains, three biases and a logit for each of four pixels
    ]
    network = _build((4, 6), (1, 1)).network
    assert [tuple(weight.shape) for weight in network.weights[::2]] == shapes
    path = tf.train.Checkpoint(network=network).write(str(tmp_path / "checkpoint"))
    stored = dict(tf.train.list_variables(path))
    for k, shape in enumerate(shapes):
        assert stored.pop(f"network/layer_with_weights-{k}/kernel/.ATTRIBUTES/VARIABLE_VALUE") == list(shape)
        assert stored.pop(f"network/layer_with_weights-{k}/bias/.ATTRIBUTES/VARIABLE_VALUE") == [shape[-1]]
    assert stored.keys() == {"_CHECKPOINTABLE_OBJECT_GRAPH"}


def test_the_halo_is_what_its_layers_reach():
    # At half the picture's resolution the stem, four convolutions and the head, at a quarter four, at an eighth two;
    # and what each of the three foldings takes a sample from: 1 + 2 + 4 pixels beside its own.
    assert _build((4, 6, 8), (1, 1, 1)).halo == 2 * (1 + 4 + 1) + 4 * 4 + 8 * 2 + 1 + 2 + 4
    assert _build((), ()).halo == 187
