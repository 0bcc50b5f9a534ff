"""Grades how well a mark withstands an attack, with one letter.

    A   it holds            F   it is removed without a trace

To get a grade, the attack's result must reach both of the grade's figures, PSNR and SSIM over covered pixels: a mark is
still there if its colors (PSNR) or its shapes (SSIM) are.
"""

from __future__ import annotations

from typing import NamedTuple


class Step(NamedTuple):
    """The minimum PSNR in dB and SSIM, over covered pixels, that an attack's result must reach for a grade."""

    grade: str
    covered_psnr: float
    covered_ssim: float
    meaning: str


BEST = "A"
STEPS = (
    Step("F", 40.0, 0.98, "taken off: no one will see that it was there"),
    Step("E", 35.0, 0.95, "taken off, but for traces that a close look shows"),
    Step("D", 30.0, 0.90, "traces are seen"),
    Step("C", 25.0, 0.80, "its shapes are seen"),
    Step("B", 20.0, 0.65, "the picture is damaged where it was"),
)
HOLDS = "less than that: it holds"


def grade(covered_psnr: float | None, covered_ssim: float | None) -> str | None:
    """Grades an attack's result.

    Args:
      covered_psnr: dB, mean over images; None if the mark covers nothing.
      covered_ssim: -1..1, mean over images; None if the mark covers nothing.

    Returns:
      A (best for the mark) to F; None for a mark that covers nothing.
    """
    if covered_psnr is None or covered_ssim is None:
        return None
    for step in STEPS:
        if covered_psnr >= step.covered_psnr and covered_ssim >= step.covered_ssim:
            return step.grade
    return BEST
