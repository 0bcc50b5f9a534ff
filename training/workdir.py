"""A run's folder: its recipe and its checkpoints.

WORKDIR/
  config.json      the recipe; a run is only ever continued with the same one
  checkpoints/     the newest few states, for resuming
  best/            the weights that did best in validation, for export
  tensorboard/     scalars and before/after pictures
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import ml_collections
import tensorflow as tf

from configs.command_line import UserError


def _flat(fields: dict[str, Any], prefix: str = "config") -> dict[str, Any]:
    flat = {}
    for name, value in fields.items():
        path = f"{prefix}.{name}"
        flat.update(_flat(value, path) if isinstance(value, dict) else {path: value})
    return flat


def claim(workdir: str, config: ml_collections.ConfigDict) -> None:
    """Makes the folder this run's own, or checks that it is.

    Raises:
      UserError: the folder belongs to a run of another recipe; the differing fields are named.
    """
    # Through JSON and back, so that tuples compare equal to the lists they are stored as.
    fields = json.loads(json.dumps(config.to_dict()))
    path = Path(workdir) / "config.json"
    if path.exists():
        here, there = _flat(fields), _flat(_read_config(path))
        differing = [
            f"{name} is {here.get(name)!r} here and {there.get(name)!r} there"
            for name in sorted(here.keys() | there.keys())
            if here.get(name) != there.get(name)
        ]
        if differing:
            raise UserError(
                f"workdir {workdir} belongs to a run of another config: {'; '.join(differing)}; choose another "
                "--workdir, or the same config to continue that run"
            )
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".json.tmp")
        temporary.write_text(json.dumps(fields, indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"workdir {workdir}: cannot be written ({error.strerror}); choose another --workdir") from None


def _read_config(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"workdir {path.parent}: holds no run (no {path.name}); train one first") from None
    except ValueError:
        raise UserError(f"{path}: is not JSON any more; restore it, or remove the folder and train again") from None


def read_config(workdir: str) -> ml_collections.ConfigDict:
    """Reads the recipe of the run in a folder."""
    return ml_collections.ConfigDict(_read_config(Path(workdir) / "config.json"))


class BestWeights:
    """The weights that did best in validation so far, with the figure they reached."""

    def __init__(self, workdir: str, network: tf.keras.Model):
        self._psnr = tf.Variable(float("-inf"), trainable=False, name="best_psnr")
        self._step = tf.Variable(0, dtype=tf.int64, trainable=False, name="best_step")
        checkpoint = tf.train.Checkpoint(network=network, psnr=self._psnr, step=self._step)
        self._manager = tf.train.CheckpointManager(checkpoint, os.path.join(workdir, "best"), max_to_keep=1)

    @property
    def psnr(self) -> float:
        """Validation PSNR of the stored weights in dB, -inf before the first."""
        return float(self._psnr.numpy())

    @property
    def step(self) -> int:
        """The step at which they were stored."""
        return int(self._step.numpy())

    def offer(self, psnr: float, step: int) -> bool:
        """Stores the network's present weights if they did better; says whether they did."""
        if psnr <= self.psnr:
            return False
        self._psnr.assign(psnr)
        self._step.assign(step)
        self._manager.save(checkpoint_number=step)
        return True

    def restore(self) -> bool:
        """Loads the stored weights into the network; says whether there were any."""
        return bool(self._manager.restore_or_initialize())

    def recall_figure(self) -> None:
        """Reads the stored figure without touching the network's weights, when a run is resumed."""
        if self._manager.latest_checkpoint:
            reader = tf.train.load_checkpoint(self._manager.latest_checkpoint)
            self._psnr.assign(reader.get_tensor("psnr/.ATTRIBUTES/VARIABLE_VALUE"))
            self._step.assign(reader.get_tensor("step/.ATTRIBUTES/VARIABLE_VALUE"))
