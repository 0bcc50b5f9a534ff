r"""Evaluates the model that comes with the project, `pretrained/generic`, on watermarks that it has not seen.

    --photos=DIR      COCO val2017: python -m preprocessing.download --dataset=coco-val2017 --dest=coco
    --canvases=DIR    RGBA PNGs; default: those of `benchmarks.data.marks`, none of which is in the bank that
                      the model was trained on
    --limit=40        number of images

Out: one line per figure, measured by `benchmarks.judge`.

    generic_gain_CANVAS           dB that covered pixels of 256 x 256 crops gain
    generic_over_inpaint_CANVAS   dB over covered pixels by which the model beats cv2.inpaint (Telea), which is told
                                  which pixels are covered, while the model has to find them
    generic_uncovered_psnr        dB over uncovered pixels, the lowest of the canvases' means
    generic_megabytes             size of the SavedModel's folder

Command:

    python -m benchmarks.generic [--quick]
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from absl import flags

import pretrained
from benchmarks.data import marks
from benchmarks.data.photographs import coco_photographs, define_photos_flag
from benchmarks.judge import judge
from benchmarks.measuring.figure import report
from common import command_line

_QUICK = flags.DEFINE_bool("quick", False, "Four pictures.")
_PHOTOS = define_photos_flag()
_CANVASES = marks.define_flag()
_LIMIT = flags.DEFINE_integer("limit", 40, "Pictures.", lower_bound=1)


def measure(photographs: Sequence[Path], canvases: dict[str, Path], limit: int) -> None:
    """Prints the figures.

    Args:
      photographs: images; the first `limit` of at least 256 x 256 are used.
      canvases: RGBA images by name.
      limit: maximum number of images.
    """
    model = pretrained.GENERIC / "1"
    judged = judge(model, photographs, canvases, limit, inpaint=True)
    for name, found in judged.items():
        print(f"{name}: input {found.covered_in:.2f} dB, inpainted with the true mask {found.covered_inpainted:.2f} dB")
        report(f"generic_gain_{name}", found.covered_out - found.covered_in, "dB", 8)
        report(f"generic_over_inpaint_{name}", found.covered_out - found.covered_inpainted, "dB")
    report("generic_uncovered_psnr", min(found.uncovered_out for found in judged.values()), "dB", 38)
    size = sum(path.stat().st_size for path in model.rglob("*") if path.is_file())
    report("generic_megabytes", size / 1e6, "MB", 8, at_least=False)


def main(argv: Sequence[str]) -> None:
    """Measures."""
    command_line.refuse_positional(argv)
    with tempfile.TemporaryDirectory() as scratch:
        canvases = marks.paths(_CANVASES.value, Path(scratch))
        measure(coco_photographs(_PHOTOS.value), canvases, 4 if _QUICK.value else _LIMIT.value)


if __name__ == "__main__":
    command_line.run(main)
