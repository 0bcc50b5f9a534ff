"""How far a run has come, and why it ends."""

from __future__ import annotations

import dataclasses
import time

import ml_collections

from training import schedule


@dataclasses.dataclass
class Progress:
    """The mutable state of a run that is not in its weights.

    Attributes:
      config: the recipe.
      step: steps done.
      minutes: spent in all processes of the run so far, validations and checkpoints included.
      figures: of the last validation, see `psnr.summarize`.
      validated_at: step of the last validation in this process; -1 before the first.
      saved_at: step of the newest checkpoint.
      is_exhausted: validation has not improved for as long as the recipe is patient.
      is_stopping: a worker was asked to stop.
    """

    config: ml_collections.ConfigDict
    step: int
    minutes: float
    figures: dict[str, float]
    saved_at: int
    validated_at: int = -1
    is_exhausted: bool = False
    is_stopping: bool = False

    def __post_init__(self) -> None:
        self.start_clock()

    def start_clock(self) -> None:
        """Counts time from now on."""
        self._counted_until = time.monotonic()

    def share(self, step: int | None = None) -> float:
        """The share of the budget used up at a step, 0..1; by default at this one."""
        step = self.step if step is None else step
        return schedule.progress(step, self.config.steps, self.minutes, self.config.max_minutes)

    @property
    def is_finished(self) -> bool:
        """The recipe's budget of steps or minutes is used up."""
        return self.share() >= 1.0

    @property
    def is_unsaved(self) -> bool:
        """Steps were taken since the newest checkpoint."""
        return bool(self.step) and self.step != self.saved_at

    @property
    def ending(self) -> str | None:
        """Why the run ends at this step, a line for the log: empty if the budget is used up, None if it continues."""
        if self.is_finished:
            return ""
        if self.is_exhausted:
            return f"No better PSNR in {self.config.patience} validations: the run ends at step {self.step}."
        if self.is_stopping:
            return f"Stopped as asked at step {self.step}; the same command continues from there."
        return None

    def count_time(self) -> None:
        """Adds the time since the last call to `minutes`."""
        now = time.monotonic()
        self.minutes, self._counted_until = self.minutes + (now - self._counted_until) / 60.0, now

    def steps_until(self, *intervals: int) -> int:
        """Steps until the next one that an interval divides."""
        return min(interval - self.step % interval for interval in intervals)
