"""One training step: corruption, network, loss and gradients are compiled per replica; the update is not.

Under MirroredStrategy, `jit_compile` around a whole step fails on CPU (`merge_call` has no XLA form) and leaks memory
on several GPUs (tensorflow#56423). So only the expensive part is compiled, once per replica. Summing the gradients over
replicas and applying the update are ordinary graph ops around it.
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
    model: models.RestorationModel,
    optimizer: Optimizer,
    config: ml_collections.ConfigDict,
    jit_compile: bool,
    corrupt_on: str = "device",
    average: WeightAverage | None = None,
) -> TrainStep:
    """Builds the training step.

    Args:
      strategy: spreads the global batch over its replicas.
      model: the network, built in `strategy`'s scope.
      optimizer: the optimizer, built in `strategy`'s scope.
      config: a recipe.
      jit_compile: whether XLA compiles the per-replica part.
      corrupt_on: "device" if batches are clean crops that the step overlays; "host" if they already are `Pairs`.
      average: average of the weights, updated after each step; None for none.

    Returns:
      `train_step(batch, step, done, learning_rate) -> metrics`. `batch` is one element of a distributed dataset of
      uint8 `[batch_size, crop, crop, 3]` or of `Pairs`; `step` is an int64 scalar; `done`, the completed share of the
      run (0..1), and `learning_rate` are float32 scalars. Metrics are scalars: `loss`, `presence_loss` and
      `target_coverage` (means over the global batch), `gradient_norm` (of both losses together, before clipping) and
      `loss_scale` (see `Optimizer.loss_scale`).

    Raises:
      UserError: the specs, the loss or the batch size cannot be used.
    """
    loss_of = pixel_loss(config.loss)
    replicas = strategy.num_replicas_in_sync
    if config.batch_size % replicas:
        raise UserError(f"config.batch_size={config.batch_size} cannot be spread evenly over {replicas} replicas")
    pairs, seeds = make_pairs(config), make_seeds(config)
    rows = config.batch_size // replicas

    def sums_and_gradients(batch: Pairs, done: tf.Tensor) -> tuple[dict[str, tf.Tensor], list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            restored, logits = model.taught(batch.source, training=True)
            loss = weighted_sum(loss_of(restored, batch.target, done), batch.weight) / config.batch_size
            presence = tf.nn.sigmoid_cross_entropy_with_logits(batch.covered, logits)
            presence_loss = weighted_sum(presence, batch.covered_weight) / config.batch_size
            total = optimizer.scaled(loss + config.presence_weight * presence_loss)
        sums = {
            "loss": loss,
            "presence_loss": presence_loss,
            "target_coverage": tf.reduce_sum(batch.target_coverage) / config.batch_size,
        }
        return sums, optimizer.unscaled(tape.gradient(total, model.network.trainable_variables))

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
        with tf.control_dependencies([loss_scale]):  # Read the scale that these gradients used; `apply` may change it.
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
        # Every figure is already summed over replicas, so all replicas hold the same value.
        return {name: strategy.experimental_local_results(figure)[0] for name, figure in figures.items()}

    return train_step


def make_execution(
    train_step: TrainStep, is_timed: bool = True
) -> Callable[[Iterator, tf.Tensor, tf.Tensor, tf.Tensor], dict]:
    """Runs several steps in one graph call, so that no step waits for Python.

    Args:
      train_step: the function from `make_train_step`.
      is_timed: whether to measure `input_wait`; deterministic graphs cannot use TensorFlow's clock.

    Returns:
      `execute(batches, first_step, done, learning_rates) -> metrics`. `batches` is an iterator of batches for
      `train_step`; `first_step` is an int64 scalar; `done` and `learning_rates` are float32 `[K]`, one value per step.
      Metrics are those of `train_step` plus `input_wait` (seconds spent waiting for the batch), each float32 `[K]`.
    """
    names = ["gradient_norm", "loss", "loss_scale", "presence_loss", "target_coverage"]
    if is_timed:
        names.append("input_wait")

    def timed_next(batches: Iterator, before: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # Start the clock after the previous step, so that only waiting is measured.
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
