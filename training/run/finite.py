"""Watching that the loss stays a number, without making a step wait for it."""

from __future__ import annotations

import json
from pathlib import Path

import ml_collections
import numpy as np
import tensorflow as tf

from common.command_line import UserError
from training.data.pairs import make_seeds


class FiniteLoss:
    """Collects what steps reported and looks at it when asked: reading a figure waits for the step that makes it."""

    def __init__(self, config: ml_collections.ConfigDict, workdir: str):
        self._config, self._workdir = config, workdir
        self._unread: list[tuple[int, dict[str, tf.Tensor]]] = []

    def collect(self, first_step: int, metrics: dict[str, tf.Tensor]) -> None:
        """Keeps the metrics, each `[K]`, of the steps that begin at `first_step`."""
        self._unread.append((first_step, metrics))

    def check(self, last_good: str | None) -> dict[str, np.ndarray]:
        """Reads what was collected since the last look.

        Args:
          last_good: path of the newest checkpoint.

        Returns:
          The metrics, each with a value a step.

        Raises:
          UserError: a loss or a gradient is not a number; `WORKDIR/not_finite.json` then says which step it was and
            which seeds make its batch's overlays again.
        """
        if not self._unread:
            return {}
        first = self._unread[0][0]
        read = [{name: value.numpy() for name, value in metrics.items()} for _, metrics in self._unread]
        self._unread = []
        joined = {name: np.concatenate([metrics[name] for metrics in read]) for name in read[0]}
        # Gradients of a loss that was scaled too far are left out, and the scale is halved: that is no failure.
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
