"""One letter for how well a mark holds against an attack.

    A   it holds            F   it is taken off as if it had never been there

The attack's result, PSNR and SSIM over covered pixels, must reach both figures of a letter. A mark is still there if
its colours are (PSNR) or its shapes are (SSIM).
"""

from __future__ import annotations

from typing import NamedTuple


class Step(NamedTuple):
    """What a result must reach for a grade: dB, and SSIM, over covered pixels."""

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
    """The letter of a result.

    Args:
      covered_psnr: dB, mean over pictures; None if the mark covers nothing.
      covered_ssim: likewise, -1..1.

    Returns:
      A, the best for the mark, to F; None for a mark that covers nothing.
    """
    if covered_psnr is None or covered_ssim is None:
        return None
    for step in STEPS:
        if covered_psnr >= step.covered_psnr and covered_ssim >= step.covered_ssim:
            return step.grade
    return BEST
