"""The learning rate as a function of how much of the run is done."""

from __future__ import annotations

import math
from typing import Callable

import ml_collections

from common.command_line import UserError


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


def _constant(done: float) -> float:
    del done
    return 1.0


def _cosine(done: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * done))


def _quarters(done: float) -> float:
    return 0.5 ** min(3, int(4.0 * done))


_SHAPES = {"cosine": _cosine, "constant": _constant, "quarters": _quarters}


def learning_rate(config: ml_collections.ConfigDict) -> Callable[[float], float]:
    """Makes the learning rate's course.

    Args:
      config: a recipe; `schedule`, `learning_rate` (the highest) and `warmup` are read.

    Returns:
      `rate(done)`, `done` being the share of the run that is done, 0..1. After a linear warm-up: `cosine`
      (Loshchilov & Hutter, ICLR 2017), `constant`, or `quarters`, the older scripts' halving at each quarter.

    Raises:
      UserError: there is no such schedule, or a warm-up that is no share.
    """
    if config.schedule not in _SHAPES:
        raise UserError(
            f"config.schedule={config.schedule!r}: there is no such schedule; there are {', '.join(_SHAPES)}"
        )
    if not 0.0 <= config.warmup < 1.0:
        raise UserError(f"config.warmup={config.warmup}: must be a share of the run, at least 0 and below 1")
    shape, peak, warmup = _SHAPES[config.schedule], config.learning_rate, config.warmup

    def rate(done: float) -> float:
        if done < warmup:
            # Never quite zero, so that the first step counts.
            return peak * max(done / warmup, 0.02)
        return peak * shape((done - warmup) / (1.0 - warmup))

    return rate
