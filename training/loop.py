"""The training loop: batches in, checkpoints out."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator

import ml_collections
import numpy as np
import tensorflow as tf
from absl import logging

from configs import noise2noise
from configs.command_line import UserError
from training import models, schedule
from training import workdir as workdir_lib
from training.input_pipeline import training_batches
from training.pairs import overlaid_on_host
from training.reporting import Reporter
from training.step import make_train_step
from training.validation import Validation, make_restore

# Batches on which it is measured whether Noise2Noise can work.
_COVERAGE_STEPS = 5


def _read(batches: Iterator[tf.Tensor], data_dir: str) -> tf.Tensor:
    try:
        return next(batches)
    except (tf.errors.InvalidArgumentError, tf.errors.DataLossError, tf.errors.NotFoundError) as error:
        reason = str(error.message).splitlines()[0]
        raise UserError(
            f"data {data_dir}: a record cannot be read ({reason}); python -m preprocessing.verify {data_dir} names it"
        ) from None


def train_and_evaluate(
    config: ml_collections.ConfigDict,
    workdir: str,
    strategy: tf.distribute.Strategy,
    jit_compile: bool,
    corrupt_on: str = "device",
) -> dict[str, float]:
    """Trains until the recipe's budget is used up; continues where an earlier call in the same folder stopped.

    Args:
      config: a recipe, see `configs/default.py`.
      workdir: the run's folder, made where it is absent.
      strategy: over whose replicas each batch is spread.
      jit_compile: whether XLA compiles the per-replica part of the step.
      corrupt_on: "device", in the step, or "host", in tf.data; the pairs are the same.

    Returns:
      The last validation's figures (dB): `psnr`, `covered_psnr`, `uncovered_psnr`.

    Raises:
      UserError: the recipe, its files or the folder cannot be used; the loss is not a number any more.
    """
    # Everything that can be wrong with what the user gave is found before the folder is touched.
    batches = training_batches(config)
    with strategy.scope():
        restorer = models.build(config)
        network = restorer.network
        optimizer = tf.keras.optimizers.Adam(config.learning_rate)
        optimizer.build(network.trainable_variables)
    train_step = make_train_step(strategy, restorer, optimizer, config, jit_compile, corrupt_on)
    validation, restore = Validation(config), make_restore(network)
    workdir_lib.claim(workdir, config)

    step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
    minutes = tf.Variable(0.0, dtype=tf.float64, trainable=False, name="minutes")
    checkpoint = tf.train.Checkpoint(network=network, optimizer=optimizer, step=step, minutes=minutes)
    checkpoints = tf.train.CheckpointManager(
        checkpoint, os.path.join(workdir, "checkpoints"), max_to_keep=config.keep_checkpoints
    )
    best = workdir_lib.BestWeights(workdir, network)
    if checkpoints.restore_or_initialize():
        best.recall_figure()
        logging.info("Continuing %s at step %d.", workdir, step.numpy())

    coverage: list[float] = []
    done_steps, spent = int(step.numpy()), float(minutes.numpy())
    figures, validated_at = dict(validation.before), -1
    if corrupt_on == "host":
        batches = overlaid_on_host(batches, config, done_steps)
    elements = iter(strategy.experimental_distribute_dataset(batches))
    with Reporter(workdir) as reporter:
        reporter.config(str(config))
        done = schedule.progress(done_steps, config.steps, spent, config.max_minutes)
        reported = (done_steps, time.monotonic())
        while True:
            finished = done >= 1.0
            if done_steps != validated_at and (finished or (done_steps and done_steps % config.eval_every == 0)):
                paused = time.monotonic()
                restored = restore(validation.corrupted)
                figures = validation.judge(restored)
                validated_at = done_steps
                reporter.validation(done_steps, figures, validation.before)
                reporter.pictures(done_steps, validation.clean, validation.corrupted, restored)
                best.offer(figures["psnr"], done_steps)
                reported = (reported[0], reported[1] + time.monotonic() - paused)
            if finished or (done_steps and done_steps % config.checkpoint_every == 0):
                step.assign(done_steps)
                minutes.assign(spent)
                checkpoints.save(checkpoint_number=done_steps)
            if finished:
                return figures

            started = time.monotonic()
            learning_rate = schedule.cosine(done, config.learning_rate, config.warmup)
            metrics = train_step(
                _read(elements, config.data.dir),
                tf.constant(done_steps, tf.int64),
                tf.constant(learning_rate, tf.float32),
            )
            done_steps += 1
            if done_steps <= _COVERAGE_STEPS:
                coverage.append(float(metrics["target_coverage"]))
                warning = noise2noise.warning(np.mean(coverage), config.mask_target)
                if done_steps == _COVERAGE_STEPS and warning:
                    logging.warning("measured on the first %d batches: %s", _COVERAGE_STEPS, warning)
            if done_steps % config.log_every == 0:
                scalars = {name: float(value) for name, value in metrics.items()}
                if not math.isfinite(scalars["loss"]):
                    raise UserError(
                        f"step {done_steps}: the loss is {scalars['loss']}; the last good checkpoint is "
                        f"{checkpoints.latest_checkpoint}; try a lower --config.learning_rate in a new --workdir"
                    )
                now = time.monotonic()
                scalars["images_per_second"] = (done_steps - reported[0]) * config.batch_size / (now - reported[1])
                scalars["learning_rate"] = learning_rate
                reported = (done_steps, now)
                reporter.training(done_steps, scalars)
            spent += (time.monotonic() - started) / 60.0
            done = schedule.progress(done_steps, config.steps, spent, config.max_minutes)
            reporter.progress(done)
