"""Reports a run's progress: a progress bar, scalars and images for TensorBoard, and the scalars as a CSV table."""

from __future__ import annotations

import csv
import math
import os
import sys
from typing import Any, Callable

import numpy as np
import tensorflow as tf
from absl import logging
from tqdm import tqdm

from training.evaluation import psnr

_PICTURES = 4  # validation crops shown


_COLUMNS = (
    "step",
    "loss",
    "presence_loss",
    "gradient_norm",
    "learning_rate",
    "loss_scale",
    "images_per_second",
    "input_wait_share",
    *psnr.MEASURES,
)


class _Table:
    """`metrics.csv`, for use without TensorBoard; training rows leave the validation columns empty."""

    def __init__(self, path: str, step: int):
        kept = []
        if os.path.exists(path):
            with open(path, newline="", encoding="utf-8") as file:
                # A killed run may have left an incomplete row.
                rows = [row for row in csv.DictReader(file) if None not in row.values()]
            kept = [row for row in rows if row["step"].isdigit() and int(row["step"]) <= step]
        temporary = f"{path}.tmp"
        self._file = open(temporary, "w", newline="", encoding="utf-8")
        self._rows = csv.DictWriter(self._file, _COLUMNS, extrasaction="ignore")
        self._rows.writeheader()
        self._rows.writerows(kept)
        self._file.flush()
        os.replace(temporary, path)

    def add(self, step: int, scalars: dict[str, float]) -> None:
        self._rows.writerow({"step": step, **scalars})
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def validation_figures(workdir: str, step: int) -> dict[str, float]:
    """Reads back the validation figures of a step.

    Args:
      workdir: the run's folder.
      step: the step of the validation.

    Returns:
      `psnr.MEASURES`, rounded to three decimals, without those that had no pixels to measure; empty if `metrics.csv`
      does not have the step.
    """
    try:
        with open(os.path.join(workdir, "metrics.csv"), newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["step"] == str(step) and row["psnr"]]
    except FileNotFoundError:
        return {}
    figures = {name: float(rows[-1][name] or "nan") for name in psnr.MEASURES} if rows else {}
    return {name: round(value, 3) for name, value in figures.items() if math.isfinite(value)}


class Reporter:
    """Writes `WORKDIR/tensorboard` and `WORKDIR/metrics.csv`, and updates the progress bar."""

    def __init__(self, workdir: str, step: int = 0):
        """Opens the run's files.

        Args:
          workdir: the run's folder.
          step: the run's current step; later rows of `metrics.csv` are dropped, since these steps will run again.
        """
        self._table = _Table(os.path.join(workdir, "metrics.csv"), step)
        self._writer = tf.summary.create_file_writer(os.path.join(workdir, "tensorboard"))
        # The bar shows the completed share, not steps: with a budget in minutes, the number of steps is unknown.
        self._bar = tqdm(
            total=100.0,
            desc="training",
            bar_format="{desc} {percentage:3.0f}% |{bar:24}| {elapsed}, {remaining} left{postfix}",
            mininterval=0.5,
        )
        self._psnr = ""

    def config(self, text: str) -> None:
        """Stores the recipe as text."""
        with self._writer.as_default(step=0):
            tf.summary.text("config", f"```\n{text}\n```")

    def progress(self, done: float) -> None:
        """Moves the bar to `done`, the completed share of the run, 0..1."""
        self._bar.update(100.0 * done - self._bar.n)

    def training(self, step: int, scalars: dict[str, float]) -> None:
        """Reports training figures; the bar shows `loss` and `images_per_second`."""
        self._scalars("training", step, scalars)
        self._bar.set_postfix_str(
            f"step {step}, loss {scalars['loss']:.4f}, {scalars['images_per_second']:.1f} images/s{self._psnr}"
        )

    def validation(self, step: int, figures: dict[str, float], before: dict[str, float]) -> None:
        """Reports validation figures as a line above the bar and as scalars."""
        self._psnr = f", validation {figures['psnr']:.2f} dB"
        self._bar.write(
            f"step {step}: validation PSNR {before['psnr']:.2f} -> {figures['psnr']:.2f} dB, covered pixels "
            f"{before['covered_psnr']:.2f} -> {figures['covered_psnr']:.2f} dB, "
            f"uncovered pixels {figures['uncovered_psnr']:.2f} dB"
        )
        self._scalars("validation", step, figures)

    def _scalars(self, group: str, step: int, scalars: dict[str, float]) -> None:
        with self._writer.as_default(step=step):
            for name, value in scalars.items():
                tf.summary.scalar(f"{group}/{name}", value)
        self._table.add(step, scalars)

    def pictures(self, step: int, clean: np.ndarray, corrupted: np.ndarray, restored: np.ndarray) -> None:
        """Stores rows of images: clean | overlaid | restored."""
        rows = np.concatenate([part[:_PICTURES] for part in (clean, corrupted, restored)], axis=2)
        with self._writer.as_default(step=step):
            tf.summary.image("validation/clean_overlaid_restored", rows, max_outputs=_PICTURES)

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, *exception: Any) -> None:
        self._table.close()
        self._bar.close()
        self._writer.close()


class Silence:
    """Stands in for a `Reporter` on workers that do not report."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments: None

    def __enter__(self) -> Silence:
        return self

    def __exit__(self, *exception: Any) -> None:
        pass


class Trace:
    """Writes a profile of some steps for TensorBoard."""

    def __init__(self, workdir: str, steps: tuple[int, int] | None):
        """Sets the trace's steps as (first, end), where end is excluded; None for no trace."""
        self._folder = os.path.join(workdir, "tensorboard")
        self._steps, self._running = steps or (-1, -1), False

    def until_next(self, step: int) -> int:
        """Starts or ends the trace if due at this step; returns the number of steps until the next call is needed."""
        first, last = self._steps
        if first <= step < last and not self._running:
            tf.profiler.experimental.start(self._folder)
            self._running = True
        if step >= last:
            self._end()
        return first - step if step < first else last - step if step < last else sys.maxsize

    def _end(self) -> None:
        if self._running:
            tf.profiler.experimental.stop()
            self._running = False
            logging.info("The trace is in %s.", self._folder)

    def __enter__(self) -> Trace:
        return self

    def __exit__(self, *exception: Any) -> None:
        self._end()
