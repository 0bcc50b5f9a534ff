"""The restoration networks, by name."""

from __future__ import annotations

import dataclasses

import ml_collections
import tensorflow as tf

from configs.command_line import UserError
from training.models import unet


@dataclasses.dataclass(frozen=True)
class Restorer:
    """A network and what tiling must know of it.

    Attributes:
      network: float32 `[N, H, W, 3]` in 0..1 to the same form, H and W multiples of `stride`.
      taught: the same layers with a second output, float32 `[N, H, W, 1]`: the logits of an overlay's presence.
      stride: the network sees pictures in steps of so many pixels.
      halo: pixels on each side that an output pixel depends on.
    """

    network: tf.keras.Model
    taught: tf.keras.Model
    stride: int
    halo: int


def build(config: ml_collections.ConfigDict) -> Restorer:
    """Builds the network that `config.model` describes, with fresh weights drawn from `config.seed`.

    Raises:
      UserError: a name that does not exist, or fields that contradict each other.
    """
    model = config.model
    if model.name != "unet":
        raise UserError(f"config.model.name={model.name!r}: there is no such model; there is 'unet'")
    if len(model.features) != len(model.blocks):
        raise UserError(
            f"config.model: features={tuple(model.features)} and blocks={tuple(model.blocks)} must be equally long"
        )
    tf.keras.utils.set_random_seed(config.seed)
    taught = unet.unet(model.features, model.blocks)
    network = tf.keras.Model(taught.input, taught.outputs[0], name=model.name)
    return Restorer(network, taught, 2 ** len(model.features), unet.halo(model.blocks))
