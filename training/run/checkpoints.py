"""A run's states on disk: saved whole, restored from the newest one that can be read."""

from __future__ import annotations

import os
from pathlib import Path

import tensorflow as tf
from absl import logging

from common.command_line import UserError

# TensorFlow raises as many kinds as there are ways for a file to be damaged.
_DAMAGED = (tf.errors.OpError, ValueError, IndexError, RuntimeError)


def _reason(error: Exception) -> str:
    return str(getattr(error, "message", None) or error).splitlines()[0]


def _save(manager: tf.train.CheckpointManager, step: int) -> None:
    good = manager.latest_checkpoint
    try:
        manager.save(checkpoint_number=step)
    except (tf.errors.OpError, OSError) as error:
        kept = f"the last good one is {good}" if good else "there is none before it"
        raise UserError(
            f"step {step}: the checkpoint cannot be written to {manager.directory} ({_reason(error)}); {kept}; "
            "free some space and run the same command again"
        ) from None


class Checkpoints:
    """`WORKDIR/checkpoints`: the newest few states, with the step and the minutes that they took."""

    def __init__(self, workdir: str, keep: int, **state: tf.train.Checkpoint | tf.Module):
        """Names what is saved.

        Args:
          workdir: the run's folder.
          keep: states to keep.
          **state: trackable objects: network, optimizer, average of weights.
        """
        self._step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
        self._minutes = tf.Variable(0.0, dtype=tf.float64, trainable=False, name="minutes")
        self._checkpoint = tf.train.Checkpoint(step=self._step, minutes=self._minutes, **state)
        folder = os.path.join(workdir, "checkpoints")
        self._manager = tf.train.CheckpointManager(self._checkpoint, folder, max_to_keep=keep)

    @property
    def newest(self) -> str | None:
        """Path of the newest state."""
        return self._manager.latest_checkpoint

    def save(self, step: int, minutes: float) -> None:
        """Saves the present state; TensorFlow writes it under a temporary name.

        Raises:
          UserError: the disk is full, or the folder cannot be written.
        """
        self._step.assign(step)
        self._minutes.assign(minutes)
        _save(self._manager, step)

    def restore(self) -> tuple[int, float]:
        """Restores the newest state that can be read; warns of those that cannot.

        Returns:
          The step and the minutes that it was saved at, zeros where there is no state.

        Raises:
          UserError: there are states, and none of them can be read.
        """
        # By what is there: the list that TensorFlow keeps beside the states can be torn as well.
        found = Path(self._manager.directory).glob("ckpt-*.index")
        numbered = {int(path.stem.split("-")[1]): str(path.with_suffix("")) for path in found}
        paths = [numbered[number] for number in sorted(numbered, reverse=True)]
        for path in paths:
            try:
                self._checkpoint.restore(path).assert_existing_objects_matched()
            except (*_DAMAGED, AssertionError) as error:
                logging.warning("checkpoint %s cannot be read (%s); the one before it is taken", path, _reason(error))
                continue
            return int(self._step.numpy()), float(self._minutes.numpy())
        if paths:
            raise UserError(
                f"{self._manager.directory}: none of its {len(paths)} checkpoints can be read; remove the folder to "
                "begin anew, or choose another --workdir"
            )
        return 0, 0.0


class BestWeights:
    """The weights that did best in validation so far, with the figure they reached."""

    def __init__(self, workdir: str, network: tf.keras.Model):
        # As precise as what is offered: rounded down, a figure would be beaten by itself.
        self._psnr = tf.Variable(float("-inf"), dtype=tf.float64, trainable=False, name="best_psnr")
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
        _save(self._manager, step)
        return True

    def restore(self) -> bool:
        """Loads the stored weights into the network; says whether there were any.

        Raises:
          UserError: they cannot be read.
        """
        try:
            return bool(self._manager.restore_or_initialize())
        except _DAMAGED as error:
            raise UserError(
                f"{self._manager.latest_checkpoint}: cannot be read ({_reason(error)}); continue the run, and its next "
                "validation replaces it"
            ) from None

    def recall_figure(self) -> None:
        """Reads the stored figure without touching the network's weights, when a run is resumed.

        Weights that cannot be read are passed over with a warning: the next validation replaces them.
        """
        stored = self._manager.latest_checkpoint
        if not stored:
            return
        try:
            reader = tf.train.load_checkpoint(stored)
            read = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
        except _DAMAGED as error:
            logging.warning("the best weights, %s, cannot be read (%s); they are replaced", stored, _reason(error))
            return
        self._psnr.assign(read["psnr/.ATTRIBUTES/VARIABLE_VALUE"])
        self._step.assign(read["step/.ATTRIBUTES/VARIABLE_VALUE"])
