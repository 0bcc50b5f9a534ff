"""The training loop: batches in, checkpoints out."""

from __future__ import annotations

import threading
import time

import ml_collections
import numpy as np
import tensorflow as tf
from absl import logging

from common.command_line import UserError
from preprocessing.marks import noise2noise
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
from training.run.reporting import Reporter, Silence, Trace
from training.step import make_execution, make_train_step
from training.validation import Validation, make_restore

# What reading a shard raises: a damaged record, a file that is gone, credentials that are not valid any more.
_UNREADABLE = (
    tf.errors.InvalidArgumentError,
    tf.errors.DataLossError,
    tf.errors.NotFoundError,
    tf.errors.PermissionDeniedError,
    tf.errors.UnauthenticatedError,
)

# Batches on which it is measured whether Noise2Noise can work.
_COVERAGE_STEPS = 5


def _until_next(step: int, *intervals: int) -> int:
    """Steps until the next one that an interval divides."""
    return min(interval - step % interval for interval in intervals)


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
      workdir: the run's folder, made where it is absent.
      strategy: over whose replicas each batch is spread.
      jit_compile: whether XLA compiles the per-replica part of the step.
      corrupt_on: "device", in the step, or "host", in tf.data; the pairs are the same.
      stop: set from outside to have the state saved and the call return; set here where another worker was asked to.
      profile: first and last step of a trace for TensorBoard.
      precision: what the network is to compute in, see `precision.prove`.

    Returns:
      The last validation's figures, see `metrics.summarize`.

    Raises:
      UserError: the recipe, its files or the folder cannot be used; the loss is not a number any more.
    """
    # Everything that can be wrong with what the user gave is found before the folder is touched.
    rate, team = schedule.learning_rate(config), Team(strategy)
    if team.size > 1 and (corrupt_on == "host" or config.data.deterministic):
        what = "--corrupt_on=host" if corrupt_on == "host" else "config.data.deterministic"
        raise UserError(f"{what}: is for one worker; train without it, or without --strategy=multi_worker")
    training_batches(config, 0, team.index, team.size)
    precision = prove(config, precision, team, strategy.num_replicas_in_sync, jit_compile)
    with strategy.scope():
        restorer = models.build(config, precision.compute_dtype)
        network = restorer.network
        if config.init:
            initial_weights.load(network, config.init)
        optimizer = Optimizer(config, network.trainable_variables, precision.compute_dtype)
        average = WeightAverage(network.trainable_variables, config.ema)
    train_step = make_train_step(strategy, restorer, optimizer, config, jit_compile, corrupt_on, average)
    execute = make_execution(train_step, is_timed=not config.data.deterministic)
    # What will be exported is judged: the network in float32.
    exported = network if precision.compute_dtype == "float32" else models.build(config).network
    validation, restore = Validation(config), make_restore(exported)
    if team.is_chief:
        workdir_lib.claim(workdir, config)
        validation_samples.save(workdir, validation)

    averages = tf.train.Checkpoint(averages=average.averages)
    checkpoints = Checkpoints(
        workdir, config.keep_checkpoints, network=network, optimizer=optimizer.keras, average=averages
    )
    best = BestWeights(workdir, network)
    step, minutes = checkpoints.restore()
    if step:
        best.recall_figure()
        logging.info("Continuing %s at step %d.", workdir, step)

    batches = training_batches(config, step, team.index, team.size)
    if corrupt_on == "host":
        batches = overlaid_on_host(batches, config, step)
    elements = iter(strategy.experimental_distribute_dataset(batches))
    finite = FiniteLoss(config, workdir)
    coverage: list[float] = []
    figures, validated_at, saved_at = dict(validation.before), -1, step

    def done_at(step: int) -> float:
        return schedule.progress(step, config.steps, minutes, config.max_minutes)

    def is_stale() -> bool:
        return 0 < config.patience * config.eval_every <= step - best.step

    stopping, exhausted = False, bool(step) and is_stale()
    reporting = Reporter(workdir, step) if team.is_chief else Silence()
    rewriting = devices.rewriting(precision.is_rewritten)
    with reporting as reporter, Trace(workdir, profile) as trace, rewriting:
        reporter.config(str(config))
        reported, timed_from = step, time.monotonic()
        counted_until = timed_from
        while True:
            finished = done_at(step) >= 1.0
            due = step and step != saved_at
            if ((finished or exhausted) and step != validated_at) or (due and step % config.eval_every == 0):
                paused = time.monotonic()
                finite.check(checkpoints.newest)
                if team.is_chief:
                    with average.swapped():
                        if exported is not network:
                            exported.set_weights(network.get_weights())
                        restored = restore(validation.source)
                        figures = validation.judge(restored)
                        best.offer(figures["psnr"], step)
                    reporter.validation(step, figures, validation.before)
                    reporter.pictures(step, validation.clean, validation.corrupted, restored)
                validated_at = step
                if config.patience:
                    _, exhausted = team.agree(minutes, team.is_chief and is_stale())
                timed_from += time.monotonic() - paused
            if due and (finished or exhausted or stopping or step % config.checkpoint_every == 0):
                finite.check(checkpoints.newest)
                if team.is_chief:
                    checkpoints.save(step, minutes)
                saved_at = step
            if finished:
                return figures
            if exhausted:
                logging.info("No better PSNR in %d validations: the run ends at step %d.", config.patience, step)
                return figures
            if stopping:
                logging.info("Stopped as asked at step %d; the same command continues from there.", step)
                return figures

            count = _until_next(step, config.eval_every, config.checkpoint_every, config.log_every)
            count = min(count, config.steps_per_execution, config.steps - step, trace.until_next(step))
            done = [done_at(step + k) for k in range(count)]
            try:
                metrics = execute(
                    elements,
                    tf.constant(step, tf.int64),
                    tf.constant(done, tf.float32),
                    tf.constant([rate(share) for share in done], tf.float32),
                )
            except _UNREADABLE as error:
                reason = str(error.message).splitlines()[0]
                raise UserError(
                    f"data {config.data.dir}: a record cannot be read ({reason}); "
                    f"python -m preprocessing.verify {config.data.dir} names it"
                ) from None
            finite.collect(step, metrics)
            if len(coverage) < _COVERAGE_STEPS:
                coverage.extend(metrics["target_coverage"].numpy().tolist())
                warning = noise2noise.warning(np.mean(coverage[:_COVERAGE_STEPS]), config.mask_target)
                if len(coverage) >= _COVERAGE_STEPS and warning:
                    logging.warning("measured on the first %d batches: %s", _COVERAGE_STEPS, warning)
            step += count
            if step % config.log_every == 0:
                seen = finite.check(checkpoints.newest)
                now = time.monotonic()
                scalars = {name: float(seen[name][-1]) for name in ("loss", "presence_loss", "gradient_norm")}
                scalars["images_per_second"] = (step - reported) * config.batch_size / (now - timed_from)
                if "input_wait" in seen:
                    scalars["input_wait_share"] = float(seen["input_wait"].sum()) / (now - timed_from)
                scalars["learning_rate"] = rate(done[-1])
                if optimizer.scales_loss:
                    scalars["loss_scale"] = float(seen["loss_scale"][-1])
                reported, timed_from = step, now
                reporter.training(step, scalars)
            # Everything counts, validations and checkpoints too.
            now = time.monotonic()
            minutes, counted_until = minutes + (now - counted_until) / 60.0, now
            minutes, stopping = team.agree(minutes, stop is not None and stop.is_set())
            if stopping and stop is not None:
                stop.set()
            reporter.progress(done_at(step))
