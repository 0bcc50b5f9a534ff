"""The learning rate as a function of progress through the run."""

from __future__ import annotations

import math
from typing import Callable

import ml_collections

from common.command_line import UserError


def progress(step: int, steps: int, minutes: float, max_minutes: float) -> float:
    """Returns the completed share of the run, 0..1, by whichever budget (steps or minutes) runs out first.

    Args:
      step: steps completed.
      steps: total steps.
      minutes: wall time spent training, over all sessions of the run.
      max_minutes: limit on the wall time; 0 for no limit.
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
    """Builds the learning rate schedule.

    Args:
      config: a recipe; reads `schedule`, `learning_rate` (the peak) and `warmup`.

    Returns:
      `rate(done)`, where `done` is the completed share of the run, 0..1. After a linear warm-up the schedule is
      `cosine` (Loshchilov & Hutter, ICLR 2017), `constant`, or `quarters`: halved at each quarter of the run, as in the
      older scripts.

    Raises:
      UserError: unknown schedule, or a warm-up outside 0..1 (1 excluded).
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
            # Never zero, so that the first step has an effect.
            return peak * max(done / warmup, 0.02)
        return peak * shape((done - warmup) / (1.0 - warmup))

    return rate
