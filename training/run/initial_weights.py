"""Weights to start from: a model that was trained before, on another mark or on many."""

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
    """The weights of an export, in the order of the network's own."""
    reader = tf.train.load_checkpoint(str(folder / "variables" / "variables"))
    names = {}
    for key in reader.get_variable_to_shape_map():
        owner, number, *_ = [*key.split("/"), ""]
        if owner == NETWORK_VARIABLES:
            names[int(number)] = key
    return [reader.get_tensor(names[number]) for number in sorted(names)]


def load(network: tf.keras.Model, path: str) -> None:
    """Gives a network the weights of another one of its kind.

    Args:
      network: is given them.
      path: an export, one version of it, or a training workdir, of which the weights that did best are taken.

    Raises:
      UserError: none of these, or the weights of another network.
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
