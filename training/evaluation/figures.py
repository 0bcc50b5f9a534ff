"""Figures for one restored image, and statistics over many."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from training.evaluation import psnr

MEASURES = psnr.MEASURES
STAGES = ("in", "out", "gain")  # overlaid image, restored image, improvement
FIGURES = tuple(f"{measure}_{stage}" for measure in MEASURES for stage in STAGES)

# Decimals. Figures are rounded only once, here, so that the page, the summary and the table agree to the last digit.
_DIGITS = {measure: 5 if measure.endswith("ssim") else 3 for measure in MEASURES}


def judge(
    clean: np.ndarray, corrupted: np.ndarray, restored: np.ndarray, covered: np.ndarray
) -> dict[str, float | None]:
    """Compares an image before and after restoration with the clean one.

    Args:
      clean: uint8 `[H, W, 3]`.
      corrupted: uint8 `[H, W, 3]`.
      restored: uint8 `[H, W, 3]`.
      covered: bool `[H, W]`, the pixels that an overlay covers.

    Returns:
      `FIGURES`, with PSNR in dB, and `covered_share`, 0..1. Undefined figures are None: a PSNR over no pixels, and the
      SSIM of an image with a side below 11 pixels.
    """
    before, after = (psnr.measure(picture, clean, covered) for picture in (corrupted, restored))
    figures: dict[str, float | None] = {"covered_share": round(float(covered.mean()), 5)}
    for measure in MEASURES:
        values = (before[measure], after[measure], after[measure] - before[measure])
        for stage, value in zip(STAGES, values):
            figures[f"{measure}_{stage}"] = None if math.isnan(value) else round(value, _DIGITS[measure])
    return figures


def summarize(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Summarizes the figures of many images.

    Args:
      rows: one per image, see `judge`.

    Returns:
      For `covered_share` and each of `FIGURES`: `mean` and `median` over the images that have it (None if none does),
      and `pictures`, the number of these images.
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
