"""The figures of one restored picture, and those of many."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from training.evaluation import psnr

MEASURES = psnr.MEASURES
STAGES = ("in", "out", "gain")  # the overlaid picture's, the restored one's, and by how much that is better
FIGURES = tuple(f"{measure}_{stage}" for measure in MEASURES for stage in STAGES)

# Rounded once, here, so that the page, the summary and the table cannot disagree in a last digit.
_DIGITS = {measure: 5 if measure.endswith("ssim") else 3 for measure in MEASURES}


def judge(
    clean: np.ndarray, corrupted: np.ndarray, restored: np.ndarray, covered: np.ndarray
) -> dict[str, float | None]:
    """Compares a picture before and after restoration with the clean one.

    Args:
      clean: uint8 `[H, W, 3]`.
      corrupted: likewise.
      restored: likewise.
      covered: bool `[H, W]`, where an overlay fell.

    Returns:
      `FIGURES`, PSNR in dB, and `covered_share`, 0..1. None stands for what is not defined: a PSNR over no pixels, and
      an SSIM where a side is below 11 pixels.
    """
    before, after = (psnr.measure(picture, clean, covered) for picture in (corrupted, restored))
    figures: dict[str, float | None] = {"covered_share": round(float(covered.mean()), 5)}
    for measure in MEASURES:
        values = (before[measure], after[measure], after[measure] - before[measure])
        for stage, value in zip(STAGES, values):
            figures[f"{measure}_{stage}"] = None if math.isnan(value) else round(value, _DIGITS[measure])
    return figures


def summarize(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Puts pictures together.

    Args:
      rows: one a picture, see `judge`.

    Returns:
      For `covered_share` and each of `FIGURES`: `mean` and `median` over the pictures that have it, None where none
      has, and `pictures`, their number.
    """
    summary = {}
    for name in ("covered_share", *FIGURES):
        values = [row[name] for row in rows if row[name] is not None]
        summary[name] = {
            "mean": round(statistics.fmean(values), 5) if values else None,
            "median": round(statistics.median(values), 5) if values else None,
            "pictures": len(values),
        }
    return summary
