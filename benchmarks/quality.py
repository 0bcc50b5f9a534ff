r"""Holds the quality of what is trained against what was promised.

    --shared=DIR     COCO pictures, canvases and a judge of SavedModels that is not ours: ../shared of a developer's
                     checkout. Where it is absent, only the demo is measured.
    --training_minutes=10     time of each run at equal cost

Out: a line for each figure.

    demo_minutes            the whole of `make demo` after installation
    demo_covered_gain       dB that covered pixels of held-out crops gain
    demo_uncovered_psnr     dB of pixels that nothing covered, against the original

    quality_noise2noise     dB of covered pixels of 40 crops of COCO val2017 under the canvas northlight_dense, by
                            DIR/tools/quality.py, after --training_minutes of the default recipe on COCO train2017
    quality_clean           likewise, with clean targets

Command:

    python -m benchmarks.quality [--quick]
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags

from benchmarks.figure import report
from benchmarks.judge import judge
from configs import command_line, demo
from examples.demo import run_demo, run_module

_QUICK = flags.DEFINE_bool("quick", False, "A tenth of the training time: shows that it runs, and misses the targets.")
_SHARED = flags.DEFINE_string(
    "shared", str(Path(__file__).parents[2] / "shared"), "Data and a judge that are not ours."
)
_MINUTES = flags.DEFINE_float("training_minutes", 10.0, "Training time of each run at equal cost.", lower_bound=0.0)

_CANVAS = "northlight_dense"


def _demo(folder: str, share: float) -> None:
    summary = run_demo("", folder, share * demo.get_config().max_minutes)
    report("demo_minutes", sum(summary["seconds_by_stage"].values()) / 60.0, "min", 12, at_least=False)
    report("demo_covered_gain", summary["covered_psnr_out"] - summary["covered_psnr_in"], "dB", 6)
    report("demo_uncovered_psnr", summary["uncovered_psnr_out"], "dB", 38)


def _at_equal_cost(shared: Path, folder: Path, minutes: float) -> None:
    dataset, canvas = folder / "tfrecords", shared / f"data/watermarks/{_CANVAS}.png"
    run_module(
        "COCO to TFRecords",
        "preprocessing.coco_to_tfrecord",
        f"--images_dir={shared / 'data/coco/train2017'}",
        f"--output_dir={dataset}",
        "--splits=train=0.9,val=0.1",
        "--shard_mb=8",
    )
    for name, target, promised in (("noise2noise", "same", 20.0), ("clean", "clean", 21.5)):
        run_module(
            f"Training, target {target}",
            "training.train",
            "--config=default",
            f"--workdir={folder / name}",
            f"--config.data.dir={dataset}",
            f"--config.source=watermark:canvas={canvas}",
            f"--config.target={target}",
            f"--config.max_minutes={minutes}",
        )
        export = folder / f"{name}_export"
        run_module("SavedModel", "serving.export", f"--workdir={folder / name}", f"--export_dir={export}")
        judged = judge(shared, export / "1", [canvas], folder / f"{name}.json")
        report(f"quality_{name}", judged[_CANVAS]["covered_out"], "dB", promised)


def main(argv: Sequence[str]) -> None:
    """Runs everything in a temporary folder."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}")
    share, shared = 0.1 if _QUICK.value else 1.0, Path(_SHARED.value)
    with tempfile.TemporaryDirectory() as folder:
        _demo(f"{folder}/demo", share)
        if shared.is_dir():
            _at_equal_cost(shared, Path(folder), share * _MINUTES.value)
        else:
            print(f"no {shared}: quality at equal cost is not measured")


if __name__ == "__main__":
    command_line.run(main)
