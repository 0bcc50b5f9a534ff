"""What a run does every so many steps. Each action says when it is due, and is called to do it.

After CLU's periodic actions, as in Flax's ImageNet example.
"""

from __future__ import annotations

import time
from typing import Callable

import ml_collections
import numpy as np
import tensorflow as tf
from absl import logging

from preprocessing.marks import noise2noise
from training.distributed.workers import Team
from training.optimizers import Optimizer
from training.run.averaging import WeightAverage
from training.run.checkpoints import BestWeights, Checkpoints
from training.run.finite import FiniteLoss
from training.run.progress import Progress
from training.run.reporting import Reporter, Silence
from training.validation import Validation, make_restore

# Batches whose coverage decides whether to warn that Noise2Noise cannot work.
_COVERAGE_STEPS = 5


class Validate:
    """Every `eval_every` steps and at the end: judges the averaged weights as an export will have them."""

    def __init__(
        self,
        progress: Progress,
        team: Team,
        validation: Validation,
        network: tf.keras.Model,
        exported: tf.keras.Model,
        average: WeightAverage,
        best: BestWeights,
        reporter: Reporter | Silence,
    ):
        """Takes the parts of a run.

        Args:
          progress: whose figures and patience it updates.
          team: the chief validates; all agree on whether patience is exhausted.
          validation: the crops.
          network: float32 `[N, H, W, C]` to `[N, H, W, 3]`, in training.
          exported: the same network computing in float32, or `network` itself.
          average: of the network's weights.
          best: keeps the weights that did best.
          reporter: is told figures and images.
        """
        self._progress, self._team, self._validation = progress, team, validation
        self._network, self._exported, self._average = network, exported, average
        self._best, self._reporter = best, reporter
        self._restore = make_restore(exported)

    @property
    def is_due(self) -> bool:
        """At an interval that is not saved yet, or at the end."""
        now, config = self._progress, self._progress.config
        if (now.is_finished or now.is_exhausted) and now.step != now.validated_at:
            return True
        return now.is_unsaved and now.step % config.eval_every == 0

    def __call__(self) -> None:
        """Validates, keeps the weights if they are the best, and reports."""
        now, validation = self._progress, self._validation
        if self._team.is_chief:
            with self._average.swapped():
                if self._exported is not self._network:
                    self._exported.set_weights(self._network.get_weights())
                restored = self._restore(validation.source)
                now.figures = validation.judge(restored)
                self._best.offer(now.figures["psnr"], now.step)
            self._reporter.validation(now.step, now.figures, validation.before)
            self._reporter.pictures(now.step, validation.clean, validation.corrupted, restored)
        now.validated_at = now.step
        if now.config.patience:
            stale = self._team.is_chief and is_stale(now, self._best)
            _, now.is_exhausted = self._team.agree(now.minutes, stale)


def is_stale(progress: Progress, best: BestWeights) -> bool:
    """Whether validation has not improved for as long as the recipe is patient."""
    return 0 < progress.config.patience * progress.config.eval_every <= progress.step - best.step


class SaveCheckpoint:
    """Every `checkpoint_every` steps and at the end: saves the state, unless it is saved already."""

    def __init__(self, progress: Progress, team: Team, checkpoints: Checkpoints):
        self._progress, self._team, self._checkpoints = progress, team, checkpoints

    @property
    def is_due(self) -> bool:
        """At an interval or at the end, where steps were taken since the last one."""
        now = self._progress
        return now.is_unsaved and (now.ending is not None or now.step % now.config.checkpoint_every == 0)

    def __call__(self) -> None:
        """Saves the state of the chief."""
        now = self._progress
        if self._team.is_chief:
            self._checkpoints.save(now.step, now.minutes)
        now.saved_at = now.step


class LogTraining:
    """Every `log_every` steps: reports the loss, its gradient's norm and the speed since the last time."""

    def __init__(
        self,
        progress: Progress,
        finite: FiniteLoss,
        optimizer: Optimizer,
        rate: Callable[[float], float],
        reporter: Reporter | Silence,
    ):
        self._progress, self._finite, self._optimizer = progress, finite, optimizer
        self._rate, self._reporter = rate, reporter
        self._reported, self._timed_from = progress.step, time.monotonic()

    def leave_out(self, seconds: float) -> None:
        """Leaves time out of the speed, such as a validation's."""
        self._timed_from += seconds

    @property
    def is_due(self) -> bool:
        """At an interval."""
        return self._progress.step % self._progress.config.log_every == 0

    def __call__(self, last_good: str | None, share: float) -> None:
        """Reports.

        Args:
          last_good: path of the newest checkpoint, for the error where the loss is not a number.
          share: of the budget that was used up at the last step taken, 0..1; the learning rate follows from it.
        """
        seen, now = self._finite.check(last_good), time.monotonic()
        elapsed, steps = now - self._timed_from, self._progress.step - self._reported
        scalars = {name: float(seen[name][-1]) for name in ("loss", "presence_loss", "gradient_norm")}
        scalars["images_per_second"] = steps * self._progress.config.batch_size / elapsed
        if "input_wait" in seen:
            scalars["input_wait_share"] = float(seen["input_wait"].sum()) / elapsed
        scalars["learning_rate"] = self._rate(share)
        if self._optimizer.scales_loss:
            scalars["loss_scale"] = float(seen["loss_scale"][-1])
        self._reported, self._timed_from = self._progress.step, now
        self._reporter.training(self._progress.step, scalars)


class WarnOfCoverage:
    """Over the first batches: measures how much of the targets is covered, and warns where Noise2Noise cannot work."""

    def __init__(self, config: ml_collections.ConfigDict):
        self._config, self._coverage = config, []

    @property
    def is_due(self) -> bool:
        """Until enough batches are measured."""
        return len(self._coverage) < _COVERAGE_STEPS

    def __call__(self, target_coverage: tf.Tensor) -> None:
        """Takes the share of covered target pixels, float32 `[K]`, a value per step."""
        self._coverage.extend(target_coverage.numpy().tolist())
        if self.is_due:
            return
        warning = noise2noise.warning(np.mean(self._coverage[:_COVERAGE_STEPS]), self._config.mask_target)
        if warning:
            logging.warning("measured on the first %d batches: %s", _COVERAGE_STEPS, warning)
