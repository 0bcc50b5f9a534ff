"""The learning rate as a function of how much of the run is done."""

from __future__ import annotations

import math


def progress(step: int, steps: int, minutes: float, max_minutes: float) -> float:
    """Share of the run that is done, 0..1, by whichever of the two budgets ends sooner.

    Args:
      step: steps done.
      steps: steps in all.
      minutes: wall time spent training, over all sessions of the run.
      max_minutes: wall time allowed, 0 for no limit.
    """
    share = step / max(1, steps)
    return min(1.0, max(share, minutes / max_minutes) if max_minutes else share)


def cosine(done: float, peak: float, warmup: float) -> float:
    """Cosine decay after a linear warm-up (Loshchilov & Hutter, ICLR 2017).

    Args:
      done: share of the run that is done, 0..1.
      peak: highest learning rate.
      warmup: share of the run spent rising to it.
    """
    if done < warmup:
        # Never quite zero, so that the first step counts.
        return peak * max(done / warmup, 0.02)
    return peak * 0.5 * (1.0 + math.cos(math.pi * (done - warmup) / max(1e-9, 1.0 - warmup)))
