r"""Judges the model that comes with the project, `pretrained/generic`, on marks it has not seen.

    --shared=DIR     COCO pictures, canvases and a judge of SavedModels that is not ours: ../shared of a developer's
                     checkout. None of the canvases is in the bank that the model was trained on.
    --limit=40       pictures

Out: a line for each figure.

    generic_gain_CANVAS        dB that covered pixels of 256 x 256 crops of COCO val2017 gain, by DIR/tools/quality.py
    generic_uncovered_psnr     dB of the uncovered pixels of the same crops, the lowest of the canvases' means, by
                               `training.evaluate`
    generic_megabytes          size of the SavedModel's folder

Command:

    python -m benchmarks.generic [--quick]
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags

import pretrained
from benchmarks.figure import report
from benchmarks.judge import judge
from configs import command_line
from training.evaluate import evaluate

_QUICK = flags.DEFINE_bool("quick", False, "Four pictures.")
_SHARED = flags.DEFINE_string("shared", str(Path(__file__).parents[2] / "shared"), "Data and a judge, not ours.")
_LIMIT = flags.DEFINE_integer("limit", 40, "Pictures.", lower_bound=1)


def measure(shared: Path, folder: Path, limit: int) -> None:
    """Prints the figures.

    Args:
      shared: holds `data/coco/val2017`, `data/watermarks` and `tools/quality.py`.
      folder: an empty folder.
      limit: pictures.
    """
    model, canvases = pretrained.GENERIC / "1", sorted((shared / "data/watermarks").glob("*.png"))
    judged = judge(shared, model, canvases, folder / "quality.json", limit)
    for name, figures in judged.items():
        report(f"generic_gain_{name}", figures["covered_out"] - figures["covered_in"], "dB", 8)

    pictures = folder / "pictures"
    pictures.mkdir()
    for path in sorted((shared / "data/coco/val2017").glob("*.jpg"))[:limit]:
        (pictures / path.name).symlink_to(path.resolve())
    specs = [f"watermark:canvas={path},opacity=0.88..0.97" for path in canvases]
    summary = evaluate(str(model), str(pictures), specs, str(folder / "report"))
    lowest = min(part["figures"]["uncovered_psnr_out"]["mean"] for part in summary["specs"])
    report("generic_uncovered_psnr", lowest, "dB", 38)
    size = sum(path.stat().st_size for path in model.rglob("*") if path.is_file())
    report("generic_megabytes", size / 1e6, "MB", 8, at_least=False)


def main(argv: Sequence[str]) -> None:
    """Measures, where there is something to measure on."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}")
    shared = Path(_SHARED.value)
    if not shared.is_dir():
        print(f"no {shared}: nothing to judge the model on")
        return
    with tempfile.TemporaryDirectory() as folder:
        measure(shared, Path(folder), 4 if _QUICK.value else _LIMIT.value)


if __name__ == "__main__":
    command_line.run(main)
