"""The validation crops as a file in the run's folder, for comparing an export with what training measured."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import ml_collections
import numpy as np

from common import files
from training.evaluation import psnr
from training.validation import Validation

_FILE = "validation.npz"


@dataclasses.dataclass(frozen=True)
class Samples:
    """Watermarked images and their ground truth.

    Attributes:
      corrupted: uint8 `[N, H, W, 3]`.
      clean: uint8 `[N, H, W, 3]`.
      covered: bool `[N, H, W]`, the pixels that the watermark covers.
    """

    corrupted: np.ndarray
    clean: np.ndarray
    covered: np.ndarray

    def judge(self, restored: np.ndarray) -> dict[str, float]:
        """Compares restored images, uint8 `[N, H, W, 3]`, with the clean ones; see `psnr.summarize`."""
        return psnr.summarize(restored, self.clean, self.covered)


def save(workdir: str, validation: Validation) -> None:
    """Writes a run's validation crops into its folder, atomically, unless they are there already."""
    path = Path(workdir) / _FILE
    if path.exists():
        return
    with files.whole(path) as temporary:
        np.savez(temporary, corrupted=validation.corrupted, clean=validation.clean, covered=validation.covered)


def load(workdir: str, config: ml_collections.ConfigDict) -> Samples:
    """Reads a run's validation crops; runs of version 0.1 lack the file, so theirs are rebuilt from the dataset.

    Raises:
      UserError: there is neither the file nor the dataset.
    """
    path = Path(workdir) / _FILE
    if path.exists():
        with np.load(path) as arrays:
            return Samples(**arrays)
    validation = Validation(config)
    return Samples(validation.corrupted, validation.clean, validation.covered)
