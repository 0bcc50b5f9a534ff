"""Describes a canvas for training: its coverage, its opacity, and whether Noise2Noise can remove it.

>>> print(describe(canvas_file.read("mark.png")))
size      1000 x 1000
coverage  26.6 % of the pixels
opacity   mean 0.58, median 0.59 where it covers
...
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from preprocessing.marks import noise2noise

_BINS = 10
_BAR = 40


def describe(canvas: Image.Image) -> str:
    """Describes a canvas.

    Args:
      canvas: RGBA, not transparent everywhere.

    Returns:
      Lines of text: size, coverage, opacity with a histogram, and a verdict on Noise2Noise.
    """
    alpha = np.asarray(canvas.getchannel("A")).astype(np.float64) / 255
    # As in training's masked loss, even the faintest alpha counts as covered.
    covering = alpha[alpha > 0]
    coverage = covering.size / alpha.size
    lines = [
        f"size      {canvas.width} x {canvas.height}",
        f"coverage  {100 * coverage:.3g} % of the pixels",
        f"opacity   mean {covering.mean():.2f}, median {np.median(covering):.2f} where it covers",
        "",
        "opacity      share of what is covered",
    ]
    counts, edges = np.histogram(covering, _BINS, (0, 1))
    for count, low, high in zip(counts, edges, edges[1:]):
        bar = "#" * max(round(_BAR * count / counts.max()), int(count > 0))
        lines.append(f"{low:.1f}..{high:.1f}  {100 * count / covering.size:5.1f} %  {bar}".rstrip())
    return "\n".join([*lines, "", _verdict(coverage)])


def _verdict(coverage: float) -> str:
    masked, plain = (noise2noise.warning(coverage, mask_target) for mask_target in (True, False))
    if masked:
        return f"warning: {masked}\nwarning: {plain}"
    if plain:
        return (
            f"warning: {plain}\nWith config.mask_target=True, the default, Noise2Noise learns from the "
            f"{100 * (1 - coverage):.2g} % of a target that stay uncovered."
        )
    return "Noise2Noise can remove it: a pixel shows the picture more often than the mark."
