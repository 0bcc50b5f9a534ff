"""Validation crops as a file beside the run, by which an export is compared with what training measured."""

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
    """Marked images and what they should become.

    Attributes:
      corrupted: uint8 `[N, H, W, 3]`.
      clean: uint8 `[N, H, W, 3]`.
      covered: bool `[N, H, W]`, where the mark lies.
    """

    corrupted: np.ndarray
    clean: np.ndarray
    covered: np.ndarray

    def judge(self, restored: np.ndarray) -> dict[str, float]:
        """Compares restored images, uint8 `[N, H, W, 3]`, with the clean ones; see `metrics.summarize`."""
        return psnr.summarize(restored, self.clean, self.covered)


def save(workdir: str, validation: Validation) -> None:
    """Writes what a run is validated on into its folder, whole, if it is not there yet."""
    path = Path(workdir) / _FILE
    if path.exists():
        return
    with files.whole(path) as temporary:
        np.savez(temporary, corrupted=validation.corrupted, clean=validation.clean, covered=validation.covered)


def load(workdir: str, config: ml_collections.ConfigDict) -> Samples:
    """Reads what a run was validated on; a run of version 0.1 has no such file, and its dataset is asked.

    Raises:
      UserError: neither is there.
    """
    path = Path(workdir) / _FILE
    if path.exists():
        with np.load(path) as arrays:
            return Samples(**arrays)
    validation = Validation(config)
    return Samples(validation.corrupted, validation.clean, validation.covered)
