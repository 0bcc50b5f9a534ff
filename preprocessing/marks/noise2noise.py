"""Judges whether overlays leave Noise2Noise enough clean pixels to learn from; used for canvases and in training.

    >>> warning(0.2, mask_target=True) is None
    True
    >>> print(warning(0.6, mask_target=False))
    the overlay covers 60 % of the pixels, more than half: ...

Noise2Noise (Lehtinen et al., ICML 2018) compares one corrupted copy with another. With L1, a pixel converges to the
median of its targets. If overlays cover a pixel more often than not, that median is the overlay.
"""

from __future__ import annotations

# Above this fraction of covered pixels, a target pixel shows the overlay more often than the image.
MEDIAN_COVERAGE = 0.5
# Above this fraction, a masked loss sees so few target pixels that a step teaches next to nothing.
MASKED_COVERAGE = 0.9

_WAY_OUT = "train on clean targets (--config.target=clean)"


def warning(coverage: float, mask_target: bool) -> str | None:
    """Judges a coverage.

    Args:
      coverage: fraction of the target's pixels that an overlay covers, 0..1.
      mask_target: `config.mask_target`, which leaves pixels covered by the target's overlay out of the loss.

    Returns:
      One line with the problem and the remedy; None if Noise2Noise can work.

    Raises:
      ValueError: `coverage` is not within 0..1.
    """
    if not 0 <= coverage <= 1:
        raise ValueError(f"coverage {coverage} is not within 0..1")
    covered = f"the overlay covers {100 * coverage:.3g} % of the pixels"
    if mask_target:
        if coverage <= MASKED_COVERAGE:
            return None
        left = f"{100 * (1 - coverage):.2g} %" if coverage < 1 else "nothing"
        return (
            f"{covered}: the loss leaves out what the target's overlay covers (config.mask_target), so Noise2Noise has "
            f"{left} of a target to learn from; {_WAY_OUT}"
        )
    if coverage <= MEDIAN_COVERAGE:
        return None
    return (
        f"{covered}, more than half: the median of what Noise2Noise with L1 sees at a pixel is the mark, not the "
        f"picture (config.mask_target=False); {_WAY_OUT}, or leave the covered pixels out of the loss "
        "(config.mask_target=True)"
    )
