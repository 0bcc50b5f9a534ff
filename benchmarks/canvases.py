r"""Measures how accurately a canvas is extracted from flat images that carry it.

    --canvases=DIR   RGBA PNGs; by default the watermarks that `benchmarks.data.marks` draws

Out: a table, and one line per figure, for the worst canvas. Errors are in 8-bit levels.

    extract_alpha_png             mean error of alpha over all pixels, from two PNG flats of levels 0 and 255, or 64 and
                                  192
    extract_alpha_on_mark_png     mean error of alpha over only the pixels that the watermark covers
    extract_color_png             mean error of color, where alpha is above 0.1
    extract_alpha_jpeg, extract_alpha_on_mark_jpeg, extract_color_jpeg    the same from JPEG flats of quality 90

Command:

    python -m benchmarks.canvases
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags
from PIL import Image

from benchmarks.data import marks
from benchmarks.measuring.figure import report
from common import canvas_file, command_line
from preprocessing.marks.from_flats import flats
from preprocessing.marks.from_flats.extract import extract

_QUICK = flags.DEFINE_bool("quick", False, "Corners of 300 x 300 only.")
_CANVASES = marks.define_flag()


def _errors(mark: Image.Image, suffix: str, levels: tuple[int, int]) -> tuple[float, float, float]:
    """Returns mean errors in 8-bit levels: alpha over all and over covered pixels, color where alpha is above 0.1."""
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for level in levels:
            flat = Image.new("RGBA", mark.size, (level, level, level, 255))
            paths.append(f"{folder}/{level}.{suffix}")
            Image.alpha_composite(flat, mark).convert("RGB").save(paths[-1], quality=90)
        found = extract(flats.read(paths, levels))[0].astype(int)
    true = np.asarray(mark).astype(int)
    error, alpha = np.abs(found - true), true[..., 3]
    return error[..., 3].mean(), error[alpha > 0][:, 3].mean(), error[alpha > 25.5][:, :3].mean()


def main(argv: Sequence[str]) -> None:
    """Measures every canvas."""
    command_line.refuse_positional(argv)
    with tempfile.TemporaryDirectory() as scratch:
        paths = marks.paths(_CANVASES.value, Path(scratch))
        canvases = {name: canvas_file.read(str(path)) for name, path in paths.items()}
    print("| canvas | flats | error of alpha | on the mark | of colour |\n| --- | --- | --- | --- | --- |")
    worst = {suffix: np.zeros(3) for suffix in ("png", "jpg")}
    for (name, mark), suffix, levels in itertools.product(canvases.items(), worst, ((0, 255), (64, 192))):
        part = mark.crop((0, 0, 300, 300)) if _QUICK.value else mark
        errors = _errors(part, suffix, levels)
        worst[suffix] = np.maximum(worst[suffix], errors)
        print(
            f"| {name} | {suffix} {levels[0]}, {levels[1]} | {' | '.join(f'{error:.2f}' for error in errors)} |",
            flush=True,
        )
    quantities = ("alpha", "alpha_on_mark", "color")
    for suffix, kind, limits in (("png", "png", (1, 1, 2)), ("jpg", "jpeg", (3, 3, 6))):
        for quantity, error, limit in zip(quantities, worst[suffix], limits):
            report(f"extract_{quantity}_{kind}", float(error), "levels", limit, at_least=False)


if __name__ == "__main__":
    command_line.run(main)
