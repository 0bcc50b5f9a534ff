"""Times alternatives fairly and prints the figures.

seconds = median_of_alternating([ours, theirs], rounds=3)
report("conversion_header_ratio", seconds[1] / seconds[0], "x", target=5)

figure conversion_header_ratio = 6.21 x (target >= 5): ok
"""

import statistics
import time
from collections.abc import Sequence
from typing import Callable, Optional


def report(name: str, value: float, unit: str, target: Optional[float] = None, at_least: bool = True) -> bool:
    """Prints a figure on one line.

    Args:
      name: the figure's name, one word.
      value: the measured value.
      unit: its unit, such as "images/s"; "x" for a ratio.
      target: the value to reach; None if there is no target.
      at_least: whether the target is a minimum (higher is better) rather than a maximum.

    Returns:
      Whether the target was reached; True if there is none.
    """
    line = f"figure {name} = {_number(value)} {unit}"
    if target is None:
        print(line, flush=True)
        return True
    reached = value >= target if at_least else value <= target
    sign = ">=" if at_least else "<="
    print(f"{line} (target {sign} {_number(target)}): {'ok' if reached else 'missed'}", flush=True)
    return reached


def median_of_alternating(functions: Sequence[Callable[[], object]], rounds: int = 3) -> list[float]:
    """Times functions in turn, so that other load on the machine affects all of them alike.

    Args:
      functions: called without arguments, one after the other, `rounds` times each.
      rounds: number of rounds, at least 1.

    Returns:
      The median time of each function in seconds, in the order of `functions`.
    """
    seconds: list[list[float]] = [[] for _ in functions]
    for _ in range(rounds):
        for function, taken in zip(functions, seconds):
            started = time.perf_counter()
            function()
            taken.append(time.perf_counter() - started)
    return [statistics.median(taken) for taken in seconds]


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
