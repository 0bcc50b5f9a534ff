"""A judge of SavedModels that shares no code with the project: `tools/quality.py` of a developer's `../shared`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from configs import child_process


def judge(
    shared: Path, model: Path, canvases: Sequence[Path], found: Path, limit: int = 40
) -> dict[str, dict[str, float]]:
    """Judges a model on COCO val2017.

    Args:
      shared: holds `data/coco/val2017` and `tools/quality.py`.
      model: a version's folder.
      canvases: RGBA pictures.
      found: a file for the figures.
      limit: pictures, centre crops of 256 x 256.

    Returns:
      For each canvas's name: `covered_in`, `covered_out`, `psnr_in`, `psnr_out` in dB, `ssim_in`, `ssim_out`, and more.
    """
    command = [
        *(sys.executable, str(shared / "tools/quality.py")),
        *("--model", str(model)),
        *("--images", str(shared / "data/coco/val2017")),
        *("--watermarks", *map(str, canvases)),
        *("--json", str(found)),
        *("--limit", str(limit)),
    ]
    child_process.run(command, check=True)
    return json.loads(found.read_text())
