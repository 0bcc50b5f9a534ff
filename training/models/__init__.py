"""The restoration networks, by name."""

from __future__ import annotations

import dataclasses

import ml_collections
import tensorflow as tf

from common.command_line import UserError
from training.models import nafnet, repair, srresnet, u_shape, unet


@dataclasses.dataclass(frozen=True)
class RestorationModel:
    """A network and what tiling must know about it.

    Attributes:
      network: float32 `[N, H, W, C]` in 0..1 to `[N, H, W, 3]`; H and W multiples of `stride`; C is 3, 8 for `repair`.
      taught: the same layers with a second output, float32 `[N, H, W, 1]`: the logits of an overlay's presence.
      stride: the multiple, in pixels, that an image's sides and a tile's position must be.
      halo: pixels on each side that an output pixel depends on.
    """

    network: tf.keras.Model
    taught: tf.keras.Model
    stride: int
    halo: int


def _levels(
    model: ml_collections.ConfigDict, features: tuple[int, ...], blocks: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns the recipe's features and blocks, or the model's defaults where the recipe leaves them empty."""
    features, blocks = tuple(model.features) or features, tuple(model.blocks) or blocks
    if len(features) != len(blocks):
        raise UserError(
            f"config.model: {model.name} with features={features} and blocks={blocks}: must be equally long"
        )
    if min(features) < 1 or min(blocks) < 0:
        raise UserError(
            f"config.model: {model.name} with features={features} and blocks={blocks}: features >= 1, blocks >= 0"
        )
    return features, blocks


def _unet(model: ml_collections.ConfigDict) -> tuple[tf.keras.Model, int, int]:
    features, blocks = _levels(model, unet.FEATURES, unet.BLOCKS)
    return unet.unet(features, blocks), u_shape.stride(blocks), unet.halo(blocks)


def _srresnet(model: ml_collections.ConfigDict) -> tuple[tf.keras.Model, int, int]:
    features, blocks = _levels(model, srresnet.FEATURES, srresnet.BLOCKS)
    if len(features) > 1:
        raise UserError(f"config.model: srresnet has one resolution, features={features} are of {len(features)}")
    return srresnet.srresnet(features[0], blocks[0]), srresnet.STRIDE, srresnet.halo(blocks[0])


def _nafnet(model: ml_collections.ConfigDict) -> tuple[tf.keras.Model, int, int]:
    features, blocks = _levels(model, nafnet.FEATURES, nafnet.BLOCKS)
    if model.window < 1 or model.window % 2 == 0:
        raise UserError(f"config.model.window={model.window}: must be odd, so that a pixel is in the middle of its own")
    return nafnet.nafnet(features, blocks, model.window), u_shape.stride(blocks), nafnet.halo(blocks, model.window)


def _repair(model: ml_collections.ConfigDict) -> tuple[tf.keras.Model, int, int]:
    features, blocks = _levels(model, repair.FEATURES, repair.BLOCKS)
    return repair.repair(features, blocks), u_shape.stride(blocks), unet.halo(blocks)


# Each builder returns the model with both outputs, its stride and its halo.
_BUILDERS = {"unet": _unet, "srresnet": _srresnet, "nafnet": _nafnet, "repair": _repair}
NAMES = tuple(_BUILDERS)


def build(config: ml_collections.ConfigDict, compute_dtype: str = "float32") -> RestorationModel:
    """Builds the network that `config.model` describes, with fresh weights drawn from `config.seed`.

    Args:
      config: a recipe.
      compute_dtype: "float32", "bfloat16" or "float16", what layers compute in; weights, inputs and outputs are
        float32.

    Raises:
      UserError: the name does not exist, or fields contradict each other.
    """
    model = config.model
    if model.name not in _BUILDERS:
        raise UserError(f"config.model.name={model.name!r}: there is no such model; there are {', '.join(NAMES)}")
    tf.keras.utils.set_random_seed(config.seed)
    policy = tf.keras.mixed_precision.global_policy()
    tf.keras.mixed_precision.set_global_policy("float32" if compute_dtype == "float32" else f"mixed_{compute_dtype}")
    try:
        taught, stride, halo = _BUILDERS[model.name](model)
    finally:
        tf.keras.mixed_precision.set_global_policy(policy)
    network = tf.keras.Model(taught.input, taught.outputs[0], name=model.name)
    return RestorationModel(network, taught, stride, halo)
