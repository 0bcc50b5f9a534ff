"""One training step: corruption, network, loss and gradients compiled per replica; the update outside of it.

`jit_compile` around a whole step under MirroredStrategy fails on CPU (`merge_call` has no XLA form) and leaks on
several GPUs (tensorflow#56423). So what costs time is compiled for each replica, and the gradients' sum over the
replicas and the optimizer's update are ordinary graph ops around it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Callable

import ml_collections
import tensorflow as tf

from common.command_line import UserError
from training import models
from training.data.pairs import Pairs, make_pairs, make_seeds
from training.losses import pixel_loss, weighted_sum
from training.optimizers import Optimizer
from training.run.averaging import WeightAverage

TrainStep = Callable[[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor], dict[str, tf.Tensor]]


def make_train_step(
    strategy: tf.distribute.Strategy,
    restorer: models.Restorer,
    optimizer: Optimizer,
    config: ml_collections.ConfigDict,
    jit_compile: bool,
    corrupt_on: str = "device",
    average: WeightAverage | None = None,
) -> TrainStep:
    """Makes the step.

    Args:
      strategy: over whose replicas the global batch is spread.
      restorer: the network, built under `strategy`'s scope.
      optimizer: likewise.
      config: a recipe.
      jit_compile: whether XLA compiles the per-replica part.
      corrupt_on: "device", batches are clean crops and the step overlays them; "host", they are `Pairs` already.
      average: of the weights, to be updated after each step.

    Returns:
      `train_step(batch, step, done, learning_rate) -> metrics`: `batch` is one element of a distributed dataset of
      uint8 `[batch_size, crop, crop, 3]` or of `Pairs`, `step` an int64 scalar, `done` a float32 scalar, the share of
      the run that is done, `learning_rate` a float32 scalar; metrics are scalars: `loss`, `presence_loss` and
      `target_coverage` (means over the global batch), `gradient_norm` (of both losses together, before clipping) and
      `loss_scale`, see `Optimizer.loss_scale`.

    Raises:
      UserError: specs, loss or batch size that cannot be used.
    """
    loss_of = pixel_loss(config.loss)
    replicas = strategy.num_replicas_in_sync
    if config.batch_size % replicas:
        raise UserError(f"config.batch_size={config.batch_size} cannot be spread evenly over {replicas} replicas")
    pairs, seeds = make_pairs(config), make_seeds(config)
    rows = config.batch_size // replicas

    def sums_and_gradients(batch: Pairs, done: tf.Tensor) -> tuple[dict[str, tf.Tensor], list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            restored, logits = restorer.taught(batch.source, training=True)
            loss = weighted_sum(loss_of(restored, batch.target, done), batch.weight) / config.batch_size
            presence = tf.nn.sigmoid_cross_entropy_with_logits(batch.covered, logits)
            presence_loss = weighted_sum(presence, batch.covered_weight) / config.batch_size
            total = optimizer.scaled(loss + config.presence_weight * presence_loss)
        sums = {
            "loss": loss,
            "presence_loss": presence_loss,
            "target_coverage": tf.reduce_sum(batch.target_coverage) / config.batch_size,
        }
        return sums, optimizer.unscaled(tape.gradient(total, restorer.network.trainable_variables))

    @tf.function(jit_compile=jit_compile)
    def from_images(images: tf.Tensor, source_seeds: tf.Tensor, target_seeds: tf.Tensor, done: tf.Tensor) -> tuple:
        return sums_and_gradients(pairs(images, source_seeds, target_seeds), done)

    from_pairs = tf.function(sums_and_gradients, jit_compile=jit_compile)

    def replica_step(batch: tf.Tensor | Pairs, step: tf.Tensor, done: tf.Tensor) -> dict[str, tf.Tensor]:
        replica = tf.distribute.get_replica_context()
        if corrupt_on == "host":
            computed = from_pairs(batch, done)
        else:
            first = rows * replica.replica_id_in_sync_group
            computed = from_images(batch, *(tf.slice(table, [first, 0], [rows, 2]) for table in seeds(step)), done)
        sums, gradients = replica.all_reduce(tf.distribute.ReduceOp.SUM, computed)
        gradients, norm = tf.clip_by_global_norm(gradients, config.clip_norm)
        loss_scale = optimizer.loss_scale()
        with tf.control_dependencies([loss_scale]):  # the one that these gradients were computed with
            optimizer.apply(gradients)
        return {**sums, "gradient_norm": norm, "loss_scale": loss_scale}

    @tf.function
    def train_step(
        batch: tf.Tensor | Pairs, step: tf.Tensor, done: tf.Tensor, learning_rate: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        optimizer.set_learning_rate(learning_rate)
        figures = strategy.run(replica_step, args=(batch, step, done))
        if average is not None:
            with strategy.scope():
                average.update(step)
        # All are sums over the replicas already, equal on each.
        return {name: strategy.experimental_local_results(figure)[0] for name, figure in figures.items()}

    return train_step


def make_execution(
    train_step: TrainStep, is_timed: bool = True
) -> Callable[[Iterator, tf.Tensor, tf.Tensor, tf.Tensor], dict]:
    """Puts several steps into one call of a graph, so that none of them waits for Python.

    Args:
      train_step: what `make_train_step` made.
      is_timed: whether to measure `input_wait`; TensorFlow refuses its clock to a deterministic graph.

    Returns:
      `execute(batches, first_step, done, learning_rates) -> metrics`: `batches` an iterator of what `train_step` takes,
      `first_step` an int64 scalar, `done` and `learning_rates` float32 `[K]`, one a step; metrics are those of
      `train_step` and `input_wait`, seconds until the step's batch was there, each float32 `[K]`.
    """
    names = ["gradient_norm", "loss", "loss_scale", "presence_loss", "target_coverage"]
    if is_timed:
        names.append("input_wait")

    def timed_next(batches: Iterator, before: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # Asked for when the step before is done, so that what is measured is waiting.
        with tf.control_dependencies([before]):
            asked = tf.timestamp()
        with tf.control_dependencies([asked]):
            batch = next(batches)
        with tf.control_dependencies(tf.nest.flatten(batch, expand_composites=True)):
            return batch, tf.cast(tf.timestamp() - asked, tf.float32)

    @tf.function(reduce_retracing=True)
    def execute(batches: Iterator, first_step: tf.Tensor, done: tf.Tensor, learning_rates: tf.Tensor) -> dict:
        count = tf.size(learning_rates)
        rows = tf.TensorArray(tf.float32, count, element_shape=[len(names)], clear_after_read=False)
        before = tf.zeros([])
        for k in tf.range(count):
            batch, wait = timed_next(batches, before) if is_timed else (next(batches), before)
            metrics = train_step(batch, first_step + tf.cast(k, tf.int64), done[k], learning_rates[k])
            metrics["input_wait"] = wait
            before = metrics["loss"]
            rows = rows.write(k, tf.stack([metrics[name] for name in names]))
        return dict(zip(names, tf.unstack(rows.stack(), len(names), axis=1)))

    return execute
