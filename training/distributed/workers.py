"""Training on several machines: who writes, what workers agree on, and what happens when one is lost.

Each worker runs the same command with `--strategy=multi_worker` and its own `TF_CONFIG`:

    TF_CONFIG='{"cluster": {"worker": ["a:2222", "b:2222"]}, "task": {"type": "worker", "index": 0}}'

`python -m training.local_workers` starts several workers on this machine. Worker 0, the chief, writes checkpoints and
reports; the others read its checkpoints, so `--workdir` must be a folder that all of them share. Each worker reads its
own shards.

A supervisor goes by the exit codes: 0, the run is finished; 75, restart this worker; any other, an error of its own,
which a restart would only repeat. docs/scale.md has the commands, `kubernetes/workers.yaml` a Job.
"""

from __future__ import annotations

import json
import os

import tensorflow as tf

from common.command_line import UserError

# Exit code of a worker whose peers are gone or were asked to stop; EX_TEMPFAIL in sysexits.h: try again. A restarted
# worker resumes from the newest checkpoint.
LOST_PEER = 75

# Errors that a collective operation raises when a peer is gone or has been replaced by a new process.
LOST_PEER_ERRORS = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
    tf.errors.UnavailableError,
)


def multi_worker_strategy() -> tf.distribute.MultiWorkerMirroredStrategy:
    """Creates the strategy that `TF_CONFIG` describes and waits for all workers; call it before any other operation.

    Raises:
      UserError: `TF_CONFIG` is missing or does not describe a worker.
    """
    text = os.environ.get("TF_CONFIG", "")
    form = 'as {"cluster": {"worker": ["host:port", …]}, "task": {"type": "worker", "index": 0}}'
    try:
        described = json.loads(text)
        task, addresses = described["task"], described["cluster"]["worker"]
        if not (task["type"] == "worker" and 0 <= task["index"] < len(addresses)):
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"--strategy=multi_worker: TF_CONFIG={text!r} does not describe a worker; set it {form}, or start workers "
            "on this machine with python -m training.local_workers"
        ) from None
    return tf.distribute.MultiWorkerMirroredStrategy()


class Team:
    """The workers of a job; possibly just one.

    Attributes:
      size: number of workers.
      index: this worker's index, from 0.
      is_chief: whether this worker writes checkpoints and reports.
    """

    def __init__(self, strategy: tf.distribute.Strategy):
        self._strategy = strategy
        resolver = strategy.cluster_resolver
        self.size = len(resolver.cluster_spec().as_dict().get("worker", [])) or 1 if resolver else 1
        self.index = resolver.task_id if self.size > 1 else 0
        self.is_chief = self.index == 0
        self._sum = tf.function(self._summed)

    def _summed(self, values: tf.Tensor) -> tf.Tensor:
        def in_replica(values: tf.Tensor) -> tf.Tensor:
            # tf.identity copies the values to the replica's device, where they are summed.
            return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(values))

        return self._strategy.experimental_local_results(self._strategy.run(in_replica, args=(values,)))[0]

    def agree(self, minutes: float, *asked: bool) -> tuple[float, ...]:
        """Shares the chief's minutes and every worker's requests, so that all workers end at the same step.

        Args:
          minutes: minutes that this worker has spent.
          *asked: requests, each True if this worker makes it.

        Returns:
          The chief's minutes, and for each request whether any worker makes it.
        """
        if self.size == 1:
            return minutes, *asked
        replicas = self._strategy.num_replicas_in_sync // self.size
        values = [minutes / replicas if self.is_chief else 0.0, *map(float, asked)]
        agreed = self._sum(tf.constant(values, tf.float64)).numpy()
        return float(agreed[0]), *(bool(value) for value in agreed[1:])
