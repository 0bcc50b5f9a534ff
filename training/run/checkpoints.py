"""A run's states on disk: saved atomically, restored from the newest state that can be read."""

from __future__ import annotations

import os
from pathlib import Path

import tensorflow as tf
from absl import logging

from common.command_line import UserError

# TensorFlow raises a different error for each way that a file can be damaged.
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
    """`WORKDIR/checkpoints`: the newest few states, each with its step and the minutes trained so far."""

    def __init__(self, workdir: str, keep: int, **state: tf.train.Checkpoint | tf.Module):
        """Declares the objects to save.

        Args:
          workdir: the run's folder.
          keep: number of states to keep.
          **state: trackable objects: network, optimizer, average of the weights.
        """
        self._step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
        self._minutes = tf.Variable(0.0, dtype=tf.float64, trainable=False, name="minutes")
        self._checkpoint = tf.train.Checkpoint(step=self._step, minutes=self._minutes, **state)
        folder = os.path.join(workdir, "checkpoints")
        self._manager = tf.train.CheckpointManager(self._checkpoint, folder, max_to_keep=keep)

    @property
    def newest(self) -> str | None:
        """Path of the newest state, or None."""
        return self._manager.latest_checkpoint

    def save(self, step: int, minutes: float) -> None:
        """Saves the current state; TensorFlow writes it under a temporary name first.

        Raises:
          UserError: the disk is full, or the folder cannot be written.
        """
        self._step.assign(step)
        self._minutes.assign(minutes)
        _save(self._manager, step)

    def restore(self) -> tuple[int, float]:
        """Restores the newest readable state and warns about states that cannot be read.

        Returns:
          The step and the minutes at which it was saved; zeros if there is no state.

        Raises:
          UserError: there are states, but none of them can be read.
        """
        # List the files themselves: the index that TensorFlow keeps beside the states can be damaged as well.
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
    """The weights with the best validation result so far, and their PSNR."""

    def __init__(self, workdir: str, network: tf.keras.Model):
        # As precise as the values offered: if the stored PSNR were rounded down, the same value would beat it.
        self._psnr = tf.Variable(float("-inf"), dtype=tf.float64, trainable=False, name="best_psnr")
        self._step = tf.Variable(0, dtype=tf.int64, trainable=False, name="best_step")
        checkpoint = tf.train.Checkpoint(network=network, psnr=self._psnr, step=self._step)
        self._manager = tf.train.CheckpointManager(checkpoint, os.path.join(workdir, "best"), max_to_keep=1)

    @property
    def psnr(self) -> float:
        """Validation PSNR of the stored weights in dB; -inf if none are stored yet."""
        return float(self._psnr.numpy())

    @property
    def step(self) -> int:
        """The step of the stored weights."""
        return int(self._step.numpy())

    def offer(self, psnr: float, step: int) -> bool:
        """Stores the network's current weights if their `psnr` is a new best; returns whether it is."""
        if psnr <= self.psnr:
            return False
        self._psnr.assign(psnr)
        self._step.assign(step)
        _save(self._manager, step)
        return True

    def restore(self) -> bool:
        """Loads the stored weights into the network; returns whether there were any.

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
        """When a run resumes, reads the stored PSNR and step without touching the network's weights.

        If they cannot be read, logs a warning: the next validation replaces them.
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
