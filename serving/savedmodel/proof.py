"""Runs a written SavedModel in a fresh process, as a server will, before its version is published.

The fresh process has only the files. Nothing from this process (TensorFlow settings, compiled functions, weights in
memory) reaches it.
"""

from __future__ import annotations

import os
import pathlib
import sys
import tempfile
from collections.abc import Mapping

import numpy as np

from common import child_process
from common.command_line import UserError

TOLERANCE = 0.1  # dB of PSNR
_BATCH = 4
_SHOWN_LINES = 3

# Imports none of our code: the export must work on its own.
_PROGRAM = """
import os, sys
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import numpy as np, tensorflow as tf
folder, images, results, batch = sys.argv[1:]
images, batch = np.load(images), int(batch)
loaded = tf.saved_model.load(folder)
restore = loaded.signatures["restore"]
parts = [restore(images=tf.constant(images[k : k + batch])) for k in range(0, len(images), batch)]
np.savez(results, **{name: np.concatenate([part[name].numpy() for part in parts]) for name in parts[0]})
"""


def outputs(version_folder: str | os.PathLike, images: np.ndarray) -> Mapping[str, np.ndarray]:
    """Calls a SavedModel's `restore` in a fresh process.

    Args:
      version_folder: a version's folder.
      images: uint8 `[N, H, W, 3]`.

    Returns:
      The signature's outputs by name, each with a leading dimension of N.

    Raises:
      UserError: the process failed; the message quotes its last output.
    """
    with tempfile.TemporaryDirectory(prefix="cleanplate-proof-") as folder:
        given, results = pathlib.Path(folder, "images.npy"), pathlib.Path(folder, "results.npz")
        np.save(given, images)
        command = [sys.executable, "-c", _PROGRAM, os.fspath(version_folder), given, results, str(_BATCH)]
        done = child_process.run(command, capture_output=True, text=True)
        if done.returncode:
            last = " | ".join(done.stderr.strip().splitlines()[-_SHOWN_LINES:]) or "it said nothing"
            raise UserError(
                f"the SavedModel does not run in a fresh process (exit code {done.returncode}: {last}); no version is "
                "written"
            )
        with np.load(results) as arrays:
            return dict(arrays)


def require(measured: float, recorded: float, source: str) -> None:
    """Requires an export's PSNR to match the expected one.

    Args:
      measured: the export's PSNR in dB.
      recorded: the expected PSNR in dB. Infinity matches only infinity, and NaN only NaN.
      source: where `recorded` comes from, for the message.

    Raises:
      UserError: the two differ by more than `TOLERANCE`.
    """
    if not np.isclose(measured, recorded, rtol=0.0, atol=TOLERANCE, equal_nan=True):
        raise UserError(
            f"the SavedModel restores to {measured:.2f} dB in a fresh process, and {source} says {recorded:.2f} dB; no "
            "version is written. Weights that were trained in a number format that this processor computes wrongly "
            "look like this: train again with --precision=float32"
        )
