"""Initial weights from a model trained earlier, on another watermark or on many."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from common.command_line import UserError
from common.versions import newest_version
from training.run import exportable
from training.run.workdir import read_config

# The attribute under which an export tracks the network's variables, in the network's own order.
NETWORK_VARIABLES = "_network_variables"


def _of_version(folder: Path) -> list[tf.Tensor]:
    """Reads an export's weights, in the order of the network's variables."""
    reader = tf.train.load_checkpoint(str(folder / "variables" / "variables"))
    names = {}
    for key in reader.get_variable_to_shape_map():
        owner, number, *_ = [*key.split("/"), ""]
        if owner == NETWORK_VARIABLES:
            names[int(number)] = key
    return [reader.get_tensor(names[number]) for number in sorted(names)]


def load(network: tf.keras.Model, path: str) -> None:
    """Copies the weights of a trained model into a network of the same architecture.

    Args:
      network: the network to initialize.
      path: an export, one version of it, or a training workdir, whose weights with the best validation result are used.

    Raises:
      UserError: `path` is none of these, or its network differs.
    """
    folder = Path(path)
    newest = newest_version(folder)
    if (folder / "config.json").exists():
        weights = exportable.load(path, read_config(path).model.name == "repair").network.get_weights()
    elif (folder / "saved_model.pb").exists():
        weights = _of_version(folder)
    elif newest:
        weights = _of_version(newest)
    else:
        raise UserError(f"config.init={path}: neither an export nor a training workdir; name one, or leave it empty")
    expected = [tuple(variable.shape) for variable in network.variables]
    if [weight.shape for weight in weights] != expected:
        raise UserError(
            f"config.init={path}: is of another network than config.model; its export_info.json or config.json says "
            "which name, features and blocks to give"
        )
    for variable, weight in zip(network.variables, weights):
        variable.assign(weight)
