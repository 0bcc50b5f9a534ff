"""The training loop: batches in, checkpoints out."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterator
from typing import Callable

import ml_collections
import tensorflow as tf
from absl import logging

from common.command_line import UserError
from training import models, schedule
from training.data.input_pipeline import training_batches
from training.data.pairs import overlaid_on_host
from training.distributed import devices
from training.distributed.devices import FLOAT32, Precision
from training.distributed.precision import prove
from training.distributed.workers import Team
from training.optimizers import Optimizer
from training.run import initial_weights, validation_samples
from training.run import workdir as workdir_lib
from training.run.averaging import WeightAverage
from training.run.checkpoints import BestWeights, Checkpoints
from training.run.finite import FiniteLoss
from training.run.periodic import LogTraining, SaveCheckpoint, Validate, WarnOfCoverage, is_stale
from training.run.progress import Progress
from training.run.reporting import Reporter, Silence, Trace
from training.step import make_execution, make_train_step
from training.validation import Validation

# What reading a shard raises: a damaged record, a missing file, credentials that are no longer valid.
_UNREADABLE = (
    tf.errors.InvalidArgumentError,
    tf.errors.DataLossError,
    tf.errors.NotFoundError,
    tf.errors.PermissionDeniedError,
    tf.errors.UnauthenticatedError,
)


@dataclasses.dataclass(frozen=True)
class _Trained:
    """What a run trains.

    Attributes:
      model: the network, with its presence logits.
      exported: the network in float32, as it will be exported; the trained one itself where that computes in float32.
      optimizer: of its trainable variables.
      average: of its trainable variables.
    """

    model: models.RestorationModel
    exported: tf.keras.Model
    optimizer: Optimizer
    average: WeightAverage

    @property
    def network(self) -> tf.keras.Model:
        return self.model.network


def train_and_evaluate(
    config: ml_collections.ConfigDict,
    workdir: str,
    strategy: tf.distribute.Strategy,
    jit_compile: bool,
    corrupt_on: str = "device",
    stop: threading.Event | None = None,
    profile: tuple[int, int] | None = None,
    precision: Precision = FLOAT32,
) -> dict[str, float]:
    """Trains until the recipe's budget is used up; continues where an earlier call in the same folder stopped.

    Args:
      config: a recipe, see `configs/default.py`.
      workdir: the run's folder, created if absent.
      strategy: over whose replicas each batch is spread.
      jit_compile: whether XLA compiles the per-replica part of the step.
      corrupt_on: "device", in the step, or "host", in tf.data; the pairs are the same.
      stop: set from outside to save the state and return; set here if another worker was asked to stop.
      profile: first and last step of a trace for TensorBoard.
      precision: number format of the network, see `precision.prove`.

    Returns:
      The last validation's figures, see `psnr.summarize`.

    Raises:
      UserError: the recipe, its files or the folder cannot be used; the loss is not a number any more.
    """
    # Find everything that can be wrong with the user's input before touching the folder.
    rate, team = schedule.learning_rate(config), Team(strategy)
    _refuse_unsupported(config, corrupt_on, team)
    training_batches(config, 0, team.index, team.size)
    precision = prove(config, precision, team, strategy.num_replicas_in_sync, jit_compile)
    trained = _build(config, strategy, precision)
    train_step = make_train_step(
        strategy, trained.model, trained.optimizer, config, jit_compile, corrupt_on, trained.average
    )
    execute = make_execution(train_step, is_timed=not config.data.deterministic)
    validation = Validation(config)
    if team.is_chief:
        workdir_lib.claim(workdir, config)
        validation_samples.save(workdir, validation)
    checkpoints, best = _saved_states(config, workdir, trained)
    progress = _restore(checkpoints, best, config, workdir, validation)
    batches = _batches(config, strategy, team, corrupt_on, progress.step)
    finite = FiniteLoss(config, workdir)

    reporting = Reporter(workdir, progress.step) if team.is_chief else Silence()
    rewriting = devices.rewriting(precision.is_rewritten)
    with reporting as reporter, Trace(workdir, profile) as trace, rewriting:
        reporter.config(str(config))
        validate = Validate(
            progress, team, validation, trained.network, trained.exported, trained.average, best, reporter
        )
        save = SaveCheckpoint(progress, team, checkpoints)
        log = LogTraining(progress, finite, trained.optimizer, rate, reporter)
        warn = WarnOfCoverage(config)
        progress.start_clock()
        while True:
            if validate.is_due:
                started = time.monotonic()
                finite.check(checkpoints.newest)
                validate()
                log.leave_out(time.monotonic() - started)
            if save.is_due:
                finite.check(checkpoints.newest)
                save()
            if progress.ending is not None:
                if progress.ending:
                    logging.info("%s", progress.ending)
                return progress.figures

            count = progress.steps_until(config.eval_every, config.checkpoint_every, config.log_every)
            remaining = config.steps - progress.step
            count = min(count, config.steps_per_execution, remaining, trace.until_next(progress.step))
            shares = [progress.share(progress.step + k) for k in range(count)]
            metrics = _take_steps(execute, batches, progress.step, shares, rate, config.data.dir)
            finite.collect(progress.step, metrics)
            if warn.is_due:
                warn(metrics["target_coverage"])
            progress.step += count
            if log.is_due:
                log(checkpoints.newest, shares[-1])
            _agree(progress, team, stop)
            reporter.progress(progress.share())


def _refuse_unsupported(config: ml_collections.ConfigDict, corrupt_on: str, team: Team) -> None:
    if team.size > 1 and (corrupt_on == "host" or config.data.deterministic):
        what = "--corrupt_on=host" if corrupt_on == "host" else "config.data.deterministic"
        raise UserError(f"{what}: is for one worker; train without it, or without --strategy=multi_worker")


def _build(config: ml_collections.ConfigDict, strategy: tf.distribute.Strategy, precision: Precision) -> _Trained:
    with strategy.scope():
        model = models.build(config, precision.compute_dtype)
        network = model.network
        if config.init:
            initial_weights.load(network, config.init)
        optimizer = Optimizer(config, network.trainable_variables, precision.compute_dtype)
        average = WeightAverage(network.trainable_variables, config.ema)
    exported = network if precision.compute_dtype == "float32" else models.build(config).network
    return _Trained(model, exported, optimizer, average)


def _saved_states(
    config: ml_collections.ConfigDict, workdir: str, trained: _Trained
) -> tuple[Checkpoints, BestWeights]:
    averages = tf.train.Checkpoint(averages=trained.average.averages)
    checkpoints = Checkpoints(
        workdir, config.keep_checkpoints, network=trained.network, optimizer=trained.optimizer.keras, average=averages
    )
    return checkpoints, BestWeights(workdir, trained.network)


def _restore(
    checkpoints: Checkpoints,
    best: BestWeights,
    config: ml_collections.ConfigDict,
    workdir: str,
    validation: Validation,
) -> Progress:
    """Restores the newest checkpoint, if there is one."""
    step, minutes = checkpoints.restore()
    progress = Progress(config, step, minutes, dict(validation.before), saved_at=step)
    if step:
        best.recall_figure()
        progress.is_exhausted = is_stale(progress, best)
        logging.info("Continuing %s at step %d.", workdir, step)
    return progress


def _batches(
    config: ml_collections.ConfigDict, strategy: tf.distribute.Strategy, team: Team, corrupt_on: str, step: int
) -> Iterator:
    """The batches from a step on, distributed over the replicas."""
    batches = training_batches(config, step, team.index, team.size)
    if corrupt_on == "host":
        batches = overlaid_on_host(batches, config, step)
    return iter(strategy.experimental_distribute_dataset(batches))


def _take_steps(
    execute: Callable[..., dict[str, tf.Tensor]],
    batches: Iterator,
    step: int,
    shares: list[float],
    rate: Callable[[float], float],
    data_dir: str,
) -> dict[str, tf.Tensor]:
    """Takes a step per share of the budget; returns the metrics, each `[K]`.

    Raises:
      UserError: a record cannot be read.
    """
    try:
        return execute(
            batches,
            tf.constant(step, tf.int64),
            tf.constant(shares, tf.float32),
            tf.constant([rate(share) for share in shares], tf.float32),
        )
    except _UNREADABLE as error:
        reason = str(error.message).splitlines()[0]
        raise UserError(
            f"data {data_dir}: a record cannot be read ({reason}); python -m preprocessing.verify {data_dir} names it"
        ) from None


def _agree(progress: Progress, team: Team, stop: threading.Event | None) -> None:
    """Counts the time, and agrees with the other workers on it and on whether to stop."""
    progress.count_time()
    is_asked = stop is not None and stop.is_set()
    progress.minutes, progress.is_stopping = team.agree(progress.minutes, is_asked)
    if progress.is_stopping and stop is not None:
        stop.set()
