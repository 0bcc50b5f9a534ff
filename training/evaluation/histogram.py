"""A histogram as inline SVG, in the colors of the page around it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

_BINS = 24  # approximate maximum number of bins
_WIDTHS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)  # candidate bin widths, dB
_WIDTH, _HEIGHT = 340, 150  # SVG units; small, so that the text stays readable on a phone
_LEFT, _RIGHT, _TOP, _BOTTOM = 30, 8, 16, 34  # margins around the bars, SVG units


def bin_width(gains: Sequence[float]) -> float:
    """Returns the narrowest of `_WIDTHS` with which all gains, and zero, fit into about `_BINS` bins."""
    spread = max(*gains, 0.0) - min(*gains, 0.0)
    return next((width for width in _WIDTHS if spread / width <= _BINS), _WIDTHS[-1])


def count(gains: Sequence[float], width: float) -> dict[int, int]:
    """Counts the gains in each nonempty bin k, which spans k * width to (k + 1) * width."""
    # 1e-6 is added because 0.3 / 0.1 is less than 3 in floating point; gains are rounded to 0.001.
    return dict(Counter(math.floor(gain / width + 1e-6) for gain in gains))


def _level(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0").replace("-", "\N{MINUS SIGN}")


def histogram(gains: Sequence[float], what: str) -> str:
    """Draws a histogram of gains.

    Args:
      gains: gain per image in dB, at least one.
      what: what is counted, for the axis label and for screen readers; trusted plain text, which is not escaped.

    Returns:
      An `<svg>` element. Bars below zero have the class `loss`, the others `gain`.
    """
    width = bin_width(gains)
    counts = count(gains, width)
    # Always leave some room on both sides of zero: where zero lies is what readers look for first.
    first, last = min(*counts, -1), max(*counts, 0) + 1
    across = (_WIDTH - _LEFT - _RIGHT) / (last - first)
    floor, highest = _HEIGHT - _BOTTOM, max(counts.values())
    up = (floor - _TOP) / highest

    def x(edge: float) -> float:
        return round(_LEFT + (edge - first) * across, 2)

    bars = []
    for k, pictures in sorted(counts.items()):
        kind = "loss" if k < 0 else "gain"
        title = f"{_level(k * width)} to {_level((k + 1) * width)} dB: {pictures}"
        bars.append(
            f'<rect class="{kind}" x="{x(k) + 0.5:.2f}" y="{floor - pictures * up:.2f}" '
            f'width="{max(across - 1, 0.5):.2f}" height="{pictures * up:.2f}"><title>{title}</title></rect>'
        )
    labelled = next(step for step in (1, 2, 5, 10, 20, 50) if step * across >= 34)
    ticks = [
        f'<text x="{x(k)}" y="{floor + 14}" text-anchor="middle">{_level(k * width)}</text>'
        for k in range(first, last + 1)
        if k % labelled == 0
    ]
    below = sum(gain < 0 for gain in gains)
    summary = (
        f"Histogram: {what}, {len(gains)} pictures, from {_level(min(gains))} to {_level(max(gains))} dB; "
        f"{below} of them below zero"
    )
    return "\n".join(
        [
            f'<svg class="histogram" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{summary}">',
            *bars,
            f'<path class="axis" d="M{_LEFT} {floor}H{_WIDTH - _RIGHT}"/>',
            f'<path class="zero" d="M{x(0)} {_TOP - 8}V{floor + 3}"/>',
            f'<text x="{_LEFT - 5}" y="{_TOP + 4}" text-anchor="end">{highest}</text>',
            f'<text x="{_LEFT - 5}" y="{floor}" text-anchor="end">0</text>',
            *ticks,
            f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 5}" text-anchor="middle">{what}, dB</text>',
            "</svg>",
        ]
    )
