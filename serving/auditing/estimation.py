"""A mark, estimated from copies that carry it, by the command that does so for one's own archive."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from configs import canvas_file, child_process

LEAST_COPIES = 5  # that the command takes
_ROOT = Path(__file__).parents[2]


class NotEstimated(Exception):
    """The copies do not reveal their mark; the message says why, in one line."""


def estimate(copies: Sequence[np.ndarray]) -> np.ndarray:
    """Estimates the mark that copies have in common.

    A process of its own does it: what preprocesses archives is no part of what serves.

    Args:
      copies: `LEAST_COPIES` or more, uint8 `[H, W, 3]`.

    Returns:
      The mark, uint8 RGBA `[h, w, 4]`.

    Raises:
      NotEstimated: the command found none.
      RuntimeError: the command did not work, which says nothing about the mark.
    """
    with tempfile.TemporaryDirectory(prefix="cleanplate-audit-") as name:
        folder = Path(name).resolve()
        (folder / "copies").mkdir()
        for number, copy in enumerate(copies):
            # What JPEG has lost is lost already.
            Image.fromarray(copy).save(folder / "copies" / f"{number:05d}.png")
        out = folder / "mark.png"
        command = [sys.executable, "-m", "preprocessing.watermark", "estimate", str(folder / "copies"), f"--out={out}"]
        # In the package's folder, for one that is used without being installed.
        done = child_process.run(command, cwd=_ROOT, capture_output=True, text=True)
        if done.returncode == 0:
            return np.asarray(canvas_file.read(str(out)))
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        _, is_told, reason = last.partition("error: ")
        if done.returncode != 1 or not is_told:
            raise RuntimeError(f"{' '.join(command[1:4])}: {last}")
        # What follows is advice for who wants to know the mark.
        raise NotEstimated(reason.split(";")[0])
