"""What an export takes from a training run: the weights with the best validation result."""

from __future__ import annotations

import dataclasses
from typing import Any

import tensorflow as tf

from common.command_line import UserError
from training import models
from training.run.checkpoints import BestWeights
from training.run.reporting import validation_figures
from training.run.workdir import read_config


@dataclasses.dataclass(frozen=True)
class Exportable:
    """A trained network, with the data that tiling and reports need.

    Attributes:
      network: maps float32 `[N, H, W, C]` in 0..1 to `[N, H, W, 3]`; H and W are multiples of `stride`. C is 3, except
        for a repair network.
      stride: the network's total downsampling, in pixels.
      halo: pixels on each side that an output pixel depends on.
      info: JSON-ready: `config`, `step`, `validation_psnr` in dB, `validation` (all figures of that step that
        `metrics.csv` has), `receptive_field` in pixels per side.
    """

    network: tf.keras.Model
    stride: int
    halo: int
    info: dict[str, Any]


def load(workdir: str, is_repair: bool = False) -> Exportable:
    """Loads the best weights of a run.

    Args:
      workdir: the run's folder.
      is_repair: whether the network must be the repair network of keyed restoration, rather than a blind one.

    Raises:
      UserError: the folder holds no run, a run of the other kind, or a run without a validated checkpoint.
    """
    config = read_config(workdir)
    if is_repair != (config.model.name == "repair"):
        remedy = "train a repair network with --config=repair" if is_repair else "serving.key --repair uses it"
        raise UserError(f"workdir {workdir}: config.model.name is {config.model.name!r}; {remedy}")
    model = models.build(config)
    best = BestWeights(workdir, model.network)
    if not best.restore():
        raise UserError(f"workdir {workdir}: holds no validated checkpoint yet; train until its first validation")
    info = {
        "config": config.to_dict(),
        "step": best.step,
        "validation_psnr": round(best.psnr, 3),
        "validation": validation_figures(workdir, best.step),
        "receptive_field": 2 * model.halo + 1,
    }
    return Exportable(model.network, model.stride, model.halo, info)
