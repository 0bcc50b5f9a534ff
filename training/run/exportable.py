"""What an export takes from a training run: the weights that did best in validation."""

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
    """A trained network, what tiling must know of it, and what a report should say of it.

    Attributes:
      network: float32 `[N, H, W, C]` in 0..1 to `[N, H, W, 3]`, H and W multiples of `stride`; C is 3 but for a repair
        network.
      stride: the network sees pictures in steps of so many pixels.
      halo: pixels on each side that an output pixel depends on.
      info: JSON-ready: `config`, `step`, `validation_psnr` in dB, `validation` (all figures of that step, as far as
        `metrics.csv` has them), `receptive_field` in pixels a side.
    """

    network: tf.keras.Model
    stride: int
    halo: int
    info: dict[str, Any]


def load(workdir: str, is_repair: bool = False) -> Exportable:
    """Loads what a run has learned.

    Args:
      workdir: the run's folder.
      is_repair: whether it is to be the repair network of keyed restoration, or else a blind one.

    Raises:
      UserError: the folder holds no run, one of the other kind, or one without a validated checkpoint.
    """
    config = read_config(workdir)
    if is_repair != (config.model.name == "repair"):
        remedy = "train a repair network with --config=repair" if is_repair else "serving.key --repair uses it"
        raise UserError(f"workdir {workdir}: config.model.name is {config.model.name!r}; {remedy}")
    restorer = models.build(config)
    best = BestWeights(workdir, restorer.network)
    if not best.restore():
        raise UserError(f"workdir {workdir}: holds no validated checkpoint yet; train until its first validation")
    info = {
        "config": config.to_dict(),
        "step": best.step,
        "validation_psnr": round(best.psnr, 3),
        "validation": validation_figures(workdir, best.step),
        "receptive_field": 2 * restorer.halo + 1,
    }
    return Exportable(restorer.network, restorer.stride, restorer.halo, info)
