"""Checks that the loss stays finite, without making each step wait for the check."""

from __future__ import annotations

import json
from pathlib import Path

import ml_collections
import numpy as np
import tensorflow as tf

from common.command_line import UserError
from training.data.pairs import make_seeds


class FiniteLoss:
    """Collects the metrics of steps and checks them only on request, because reading a metric waits for its step."""

    def __init__(self, config: ml_collections.ConfigDict, workdir: str):
        self._config, self._workdir = config, workdir
        self._unread: list[tuple[int, dict[str, tf.Tensor]]] = []

    def collect(self, first_step: int, metrics: dict[str, tf.Tensor]) -> None:
        """Keeps the metrics, each `[K]`, of the K steps from `first_step` on."""
        self._unread.append((first_step, metrics))

    def check(self, last_good: str | None) -> dict[str, np.ndarray]:
        """Reads and checks the metrics collected since the last check.

        Args:
          last_good: path of the newest checkpoint.

        Returns:
          The metrics, one value per step each.

        Raises:
          UserError: a loss or gradient is not finite; `WORKDIR/not_finite.json` then holds the step and the seeds that
            reproduce its batch's overlays.
        """
        if not self._unread:
            return {}
        first = self._unread[0][0]
        read = [{name: value.numpy() for name, value in metrics.items()} for _, metrics in self._unread]
        self._unread = []
        joined = {name: np.concatenate([metrics[name] for metrics in read]) for name in read[0]}
        # If the loss was scaled too far, its gradients are skipped and the scale is halved, which is not a failure.
        is_left_out = joined["loss_scale"] > 1.0
        bad = ~(np.isfinite(joined["loss"]) & (np.isfinite(joined["gradient_norm"]) | is_left_out))
        if bad.any():
            self._fail(first + int(bad.argmax()), joined, int(bad.argmax()), last_good)
        return joined

    def _fail(self, step: int, joined: dict[str, np.ndarray], row: int, last_good: str | None) -> None:
        source, target = (seeds.numpy().tolist() for seeds in make_seeds(self._config)(tf.constant(step)))
        path = Path(self._workdir) / "not_finite.json"
        written = {
            "step": step,
            **{name: str(values[row]) for name, values in joined.items()},
            "run_seed": self._config.seed,
            "source_seeds": source,
            "target_seeds": target,
        }
        path.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
        loss, norm = joined["loss"][row], joined["gradient_norm"][row]
        raise UserError(
            f"step {step}: the loss is {loss} and the norm of its gradients {norm}; its seeds are in {path}, the last "
            f"good checkpoint is {last_good}; try a lower --config.learning_rate in a new --workdir"
        )
