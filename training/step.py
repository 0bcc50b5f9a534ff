"""One training step: corruption, network, loss and gradients compiled per replica; the update outside of it.

`jit_compile` around a whole step under MirroredStrategy fails on CPU (`merge_call` has no XLA form) and leaks on
several GPUs (tensorflow#56423). So what costs time is compiled for each replica, and the gradients' sum over the
replicas and the optimizer's update are ordinary graph ops around it.
"""

from __future__ import annotations

from typing import Callable

import ml_collections
import tensorflow as tf

from configs.command_line import UserError
from training import models
from training.pairs import Pairs, make_pairs, make_seeds

_ERRORS = {"mae": tf.abs, "mse": tf.square}


def _loss(error: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """Sum over the pictures of each one's weighted mean error, `error` being `[N, H, W, 3]`.

    Each picture is averaged by itself, so that the sum does not depend on which replica it fell to.
    """
    total = tf.reduce_sum(tf.reduce_mean(error, axis=-1, keepdims=True) * weight, axis=[1, 2, 3])
    return tf.reduce_sum(total / tf.maximum(1.0, tf.reduce_sum(weight, axis=[1, 2, 3])))


def make_train_step(
    strategy: tf.distribute.Strategy,
    restorer: models.Restorer,
    optimizer: tf.keras.optimizers.Optimizer,
    config: ml_collections.ConfigDict,
    jit_compile: bool,
    corrupt_on: str = "device",
) -> Callable[[tf.Tensor | Pairs, tf.Tensor, tf.Tensor], dict[str, tf.Tensor]]:
    """Makes the step.

    Args:
      strategy: over whose replicas the global batch is spread.
      restorer: the network, built under `strategy`'s scope.
      optimizer: likewise.
      config: a recipe.
      jit_compile: whether XLA compiles the per-replica part.
      corrupt_on: "device", batches are clean crops and the step overlays them; "host", they are `Pairs` already.

    Returns:
      `train_step(batch, step, learning_rate) -> metrics`: `batch` is one element of a distributed dataset of uint8
      `[batch_size, crop, crop, 3]` or of `Pairs`, `step` an int64 scalar, `learning_rate` a float32 scalar; metrics
      are scalars: `loss`, `presence_loss` and `target_coverage` (means over the global batch), and `gradient_norm` (of
      both losses together, before clipping).

    Raises:
      UserError: specs, loss or batch size that cannot be used.
    """
    if config.loss not in _ERRORS:
        raise UserError(f"config.loss={config.loss!r}: there is no such loss; there are {', '.join(sorted(_ERRORS))}")
    replicas = strategy.num_replicas_in_sync
    if config.batch_size % replicas:
        raise UserError(f"config.batch_size={config.batch_size} cannot be spread evenly over {replicas} replicas")
    pairs, seeds, error = make_pairs(config), make_seeds(config), _ERRORS[config.loss]
    rows = config.batch_size // replicas

    def sums_and_gradients(batch: Pairs) -> tuple[dict[str, tf.Tensor], list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            restored, logits = restorer.taught(batch.source, training=True)
            loss = _loss(error(restored - batch.target), batch.weight) / config.batch_size
            presence = tf.nn.sigmoid_cross_entropy_with_logits(batch.covered, logits)
            presence_loss = _loss(presence, batch.covered_weight) / config.batch_size
            total = loss + config.presence_weight * presence_loss
        sums = {
            "loss": loss,
            "presence_loss": presence_loss,
            "target_coverage": tf.reduce_sum(batch.target_coverage) / config.batch_size,
        }
        return sums, tape.gradient(total, restorer.network.trainable_variables)

    @tf.function(jit_compile=jit_compile)
    def from_images(images: tf.Tensor, source_seeds: tf.Tensor, target_seeds: tf.Tensor) -> tuple:
        return sums_and_gradients(pairs(images, source_seeds, target_seeds))

    from_pairs = tf.function(sums_and_gradients, jit_compile=jit_compile)

    def replica_step(batch: tf.Tensor | Pairs, step: tf.Tensor) -> dict[str, tf.Tensor]:
        replica = tf.distribute.get_replica_context()
        if corrupt_on == "host":
            computed = from_pairs(batch)
        else:
            first = rows * replica.replica_id_in_sync_group
            computed = from_images(batch, *(tf.slice(table, [first, 0], [rows, 2]) for table in seeds(step)))
        sums, gradients = replica.all_reduce(tf.distribute.ReduceOp.SUM, computed)
        gradients, norm = tf.clip_by_global_norm(gradients, config.clip_norm)
        optimizer.apply_gradients(zip(gradients, restorer.network.trainable_variables), skip_gradients_aggregation=True)
        return {**sums, "gradient_norm": norm}

    @tf.function
    def train_step(batch: tf.Tensor | Pairs, step: tf.Tensor, learning_rate: tf.Tensor) -> dict[str, tf.Tensor]:
        optimizer.learning_rate.assign(learning_rate)
        figures = strategy.run(replica_step, args=(batch, step))
        # All are sums over the replicas already, equal on each.
        return {name: strategy.experimental_local_results(figure)[0] for name, figure in figures.items()}

    return train_step
