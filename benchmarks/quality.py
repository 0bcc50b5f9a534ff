r"""Measures the quality of trained networks against the promised figures.

    --photos=DIR     COCO val2017: python -m preprocessing.download --dataset=coco-val2017 --dest=coco
    --canvas=FILE    an RGBA PNG; default: `dense` of `benchmarks.data.marks`
    --training_minutes=10     training time of each run, the same for all
    --[no]demo       whether to measure the demo too

Out: one line per figure.

    demo_minutes            all of `make demo` after installation
    demo_covered_gain       dB that covered pixels of held-out crops gain
    demo_uncovered_psnr     dB of uncovered pixels, against the original

    quality_noise2noise     dB over covered pixels, measured by `benchmarks.judge` on 40 images, after training for
                            --training_minutes with the default recipe on 265 other images
    quality_clean           the same with clean targets

Command:

    python -m benchmarks.quality [--quick]
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from benchmarks.data import marks
from benchmarks.data.photographs import coco_photographs, define_photos_flag
from benchmarks.judge import judge
from benchmarks.measuring.figure import report
from common import command_line
from common.command_line import UserError
from configs import demo
from examples.demo import run_demo, run_module

_QUICK = flags.DEFINE_bool("quick", False, "A tenth of the training time: shows that it runs, and misses the targets.")
_PHOTOS = define_photos_flag()
_CANVAS = flags.DEFINE_string("canvas", None, "An RGBA PNG; default: one that is drawn here.")
_MINUTES = flags.DEFINE_float("training_minutes", 10.0, "Training time of each run at equal cost.", lower_bound=0.0)
_DEMO = flags.DEFINE_bool("demo", True, "Measure the demo.")

# Numbers of images. A few are too small for a crop, so 50 are reserved to get the 40 that are judged.
_SET_ASIDE, _JUDGED, _TRAINED = 50, 40, 265


def _demo(folder: str, share: float) -> None:
    summary = run_demo("", folder, share * demo.get_config().max_minutes)
    report("demo_minutes", sum(summary["seconds_by_stage"].values()) / 60.0, "min", 12, at_least=False)
    report("demo_covered_gain", summary["covered_psnr_out"] - summary["covered_psnr_in"], "dB", 6)
    report("demo_uncovered_psnr", summary["uncovered_psnr_out"], "dB", 38)


def _at_equal_cost(photographs: Sequence[Path], canvas: Path, folder: Path, minutes: float) -> None:
    judged_on, trained_on = photographs[:_SET_ASIDE], photographs[_SET_ASIDE:][:_TRAINED]
    if len(trained_on) < 2:
        raise UserError(f"--photos={_PHOTOS.value}: {len(photographs)} pictures; more than {_SET_ASIDE} are needed")
    images, dataset = folder / "images", folder / "tfrecords"
    images.mkdir()
    for path in trained_on:
        (images / path.name).symlink_to(path.resolve())
    run_module(
        "COCO to TFRecords",
        "preprocessing.coco_to_tfrecord",
        f"--images_dir={images}",
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
        [found] = judge(export / "1", judged_on, {name: canvas}, _JUDGED, inpaint=True).values()
        print(f"input {found.covered_in:.2f} dB, inpainted with the true mask {found.covered_inpainted:.2f} dB")
        report(f"quality_{name}", found.covered_out, "dB", promised)


def main(argv: Sequence[str]) -> None:
    """Runs everything in a temporary folder."""
    command_line.refuse_positional(argv)
    share = 0.1 if _QUICK.value else 1.0
    with tempfile.TemporaryDirectory() as folder:
        if _DEMO.value:
            _demo(f"{folder}/demo", share)
        canvas = _CANVAS.value or marks.paths(None, Path(folder, "marks"))["dense"]
        _at_equal_cost(coco_photographs(_PHOTOS.value), Path(canvas), Path(folder), share * _MINUTES.value)


if __name__ == "__main__":
    command_line.run(main)
