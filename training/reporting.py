"""What a run tells while it goes on: a progress bar for the terminal, scalars and pictures for TensorBoard."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

_PICTURES = 4  # validation crops shown


class Reporter:
    """Writes `WORKDIR/tensorboard` and moves the bar."""

    def __init__(self, workdir: str):
        self._writer = tf.summary.create_file_writer(os.path.join(workdir, "tensorboard"))
        # A share of the run, not a number of steps: under a budget of minutes nobody knows how many there will be.
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
        """Moves the bar to a share of the run, 0..1."""
        self._bar.update(100.0 * done - self._bar.n)

    def training(self, step: int, scalars: dict[str, float]) -> None:
        """Reports figures of training; `loss` and `images_per_second` are shown at the bar."""
        with self._writer.as_default(step=step):
            for name, value in scalars.items():
                tf.summary.scalar(f"training/{name}", value)
        self._bar.set_postfix_str(
            f"step {step}, loss {scalars['loss']:.4f}, {scalars['images_per_second']:.1f} images/s{self._psnr}"
        )

    def validation(self, step: int, figures: dict[str, float], before: dict[str, float]) -> None:
        """Reports figures of validation as a line above the bar and as scalars."""
        self._psnr = f", validation {figures['psnr']:.2f} dB"
        self._bar.write(
            f"step {step}: validation PSNR {before['psnr']:.2f} -> {figures['psnr']:.2f} dB, covered pixels "
            f"{before['covered_psnr']:.2f} -> {figures['covered_psnr']:.2f} dB, "
            f"uncovered pixels {figures['uncovered_psnr']:.2f} dB"
        )
        with self._writer.as_default(step=step):
            for name, value in figures.items():
                tf.summary.scalar(f"validation/{name}", value)

    def pictures(self, step: int, clean: np.ndarray, corrupted: np.ndarray, restored: np.ndarray) -> None:
        """Stores rows of clean | overlaid | restored."""
        rows = np.concatenate([part[:_PICTURES] for part in (clean, corrupted, restored)], axis=2)
        with self._writer.as_default(step=step):
            tf.summary.image("validation/clean_overlaid_restored", rows, max_outputs=_PICTURES)

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, *exception: Any) -> None:
        self._bar.close()
        self._writer.close()
