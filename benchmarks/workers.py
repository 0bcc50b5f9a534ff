r"""Measures whether two workers train like one, with the same recipe, global batch and seed, in float32.

Each worker reads its own shards, so two workers see different crops than one. So there are two comparisons.

The first trains on a single image that has the size of a crop and is its own mirror image, so that every batch is the
same whichever worker reads it. Overlays depend only on the step and the position in the global batch. So the curves
must agree up to rounding.

    workers_same_crops_loss      largest difference in loss, in percent of one worker's loss
    workers_same_crops_psnr      largest difference in validation PSNR, dB

The second trains on the photographs that come with scikit-image and scikit-learn: one worker twice (which shard is read
first differs between runs) and two workers once. Losses are averaged over the steps between validations.

    workers_photographs_loss       largest difference between two workers' loss and the closer of the two runs with one
                                   worker, in percent of the latter
    workers_photographs_psnr       the same for the validation PSNR, dB
    workers_photographs_last_psnr  the same for the PSNR of the last validation, dB
    workers_spread_loss, workers_spread_psnr, workers_spread_last_psnr
                                   for comparison, the same differences between the two runs with one worker

Out: one line per figure, and the curves as a table for docs/scale.md. Speed is not measured, because both workers share
this machine's cores.

Command:

    python -m benchmarks.workers [--quick]
"""

from __future__ import annotations

import csv
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags
from PIL import Image, PngImagePlugin

from benchmarks.measuring.figure import report
from common import child_process, command_line
from common.command_line import UserError
from preprocessing import sample_photos
from preprocessing.conversion.convert import convert
from preprocessing.marks import draw

_QUICK = flags.DEFINE_bool("quick", False, "Fewer steps.")

_CROP = 64
_FIELDS = {
    "data.crop": _CROP,
    "data.shuffle_crops": 256,
    "target": "clean",
    "model.features": (16, 24, 32),
    "model.blocks": (1, 1, 1),
    "batch_size": 8,
    "log_every": 1,
    "val_crop": 128,
    "val_crops": 24,
}
_SHARDS = 4


class Curve(NamedTuple):
    """The loss of a run by step, and its validation PSNR in dB by step of validation."""

    loss: dict[int, float]
    psnr: dict[int, float]

    def smoothed_loss(self) -> dict[int, float]:
        """Returns the mean loss since the previous validation, by step of validation."""
        means, before = {}, 0
        for step in self.psnr:
            means[step] = statistics.fmean(loss for at, loss in self.loss.items() if before < at <= step)
            before = step
        return means


def _train(workers: int, workdir: Path, fields: dict[str, Any]) -> Curve:
    print(f"training {workdir.name}: {workers} worker{'s' * (workers > 1)}, {fields['steps']} steps", flush=True)
    launcher = ["training.local_workers", f"--workers={workers}", "--"] if workers > 1 else ["training.train"]
    overrides = [f"--config.{name}={value}" for name, value in fields.items()]
    command = [sys.executable, "-m", *launcher, f"--workdir={workdir}", "--precision=float32", *overrides]
    done = child_process.run(command, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{workdir.name}: ended with exit code {done.returncode}: {done.stderr.splitlines()[-1]}")
    with open(workdir / "metrics.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    loss, psnr = ({int(row["step"]): float(row[name]) for row in rows if row[name]} for name in ("loss", "psnr"))
    return Curve(loss, psnr)


def _write_equal_pictures(folder: Path, photographs: Path) -> None:
    """Writes files that differ in bytes but show the same image: half a crop beside its mirror image."""
    folder.mkdir()
    with Image.open(sorted(photographs.iterdir())[0]) as photograph:
        pixels = np.asarray(photograph.convert("RGB"))
    middle = [size // 2 for size in pixels.shape[:2]]
    half = pixels[middle[0] - _CROP // 2 :, middle[1] :][:_CROP, : _CROP // 2]
    picture = Image.fromarray(np.concatenate([half, half[:, ::-1]], axis=1))
    for index in range(2 * _SHARDS):
        text = PngImagePlugin.PngInfo()
        text.add_text("copy", str(index))  # identical files would be dropped from the dataset
        picture.save(folder / f"{index}.png", pnginfo=text)


def _greatest(ours: dict[int, float], *others: dict[int, float], relative: bool = False) -> float:
    """Returns a curve's largest difference, at any step, from the closest of the others; in percent if `relative`."""
    return max(
        min(abs(value - other[step]) / (0.01 * other[step] if relative else 1.0) for other in others)
        for step, value in ours.items()
    )


def measure(folder: Path, quick: bool) -> None:
    """Trains five times and prints the figures.

    Args:
      folder: an empty folder.
      quick: whether to train for fewer steps.
    """
    sample_photos.write_coco_folder(str(folder / "photos"))
    photographs = folder / "photos" / "images"
    # Small shards, so that each worker gets two.
    convert(str(photographs), str(folder / "photographs"), "train=11,val=3", shard_mb=0.4)
    canvas_path, steps = str(folder / "canvas.png"), 40 if quick else 400
    draw.save_whole(draw.tile(draw.text_stamp("Sample")), canvas_path)
    fields = {**_FIELDS, "source": f"watermark:canvas={canvas_path},opacity=0.5..1"}

    def budget(steps: int) -> dict[str, int]:
        return {"steps": steps, "checkpoint_every": steps, "eval_every": steps // 8}

    _write_equal_pictures(folder / "equal", photographs)
    size = sum(path.stat().st_size for path in (folder / "equal").iterdir())
    convert(str(folder / "equal"), str(folder / "equal_dataset"), "train=0.75,val=0.25", shard_mb=size / _SHARDS / 1e6)
    same = {**fields, **budget(steps // 4), "target": "same", "val_crop": _CROP}
    same["data.dir"] = str(folder / "equal_dataset")
    one, two = (_train(workers, folder / f"same-crops-{workers}", same) for workers in (1, 2))
    loss, psnr = _greatest(two.loss, one.loss, relative=True), _greatest(two.psnr, one.psnr)
    report("workers_same_crops_loss", loss, "%", 0.1, at_least=False)
    report("workers_same_crops_psnr", psnr, "dB", 0.05, at_least=False)

    fields = {**fields, **budget(steps), "data.dir": str(folder / "photographs")}
    one, again, two = (
        _train(workers, folder / name, fields)
        for workers, name in ((1, "one-worker"), (1, "one-worker-again"), (2, "two-workers"))
    )
    curves = [curve.smoothed_loss() for curve in (one, again, two)]
    print("| step | loss, one worker | again | two workers | PSNR, one worker | again | two workers |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for step in one.psnr:
        cells = [f"{curve[step]:.4f}" for curve in curves] + [f"{run.psnr[step]:.2f} dB" for run in (one, again, two)]
        print(f"| {step} | {' | '.join(cells)} |")
    last = [{steps: run.psnr[steps]} for run in (one, again, two)]
    report("workers_spread_loss", _greatest(curves[1], curves[0], relative=True), "%")
    report("workers_spread_psnr", _greatest(again.psnr, one.psnr), "dB")
    report("workers_spread_last_psnr", _greatest(last[1], last[0]), "dB")
    report("workers_photographs_loss", _greatest(curves[2], *curves[:2], relative=True), "%", 10, at_least=False)
    report("workers_photographs_psnr", _greatest(two.psnr, one.psnr, again.psnr), "dB")
    report("workers_photographs_last_psnr", _greatest(last[2], *last[:2]), "dB", 0.5, at_least=False)


def main(argv: Sequence[str]) -> None:
    """Measures in a temporary folder."""
    command_line.refuse_positional(argv)
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), _QUICK.value)


if __name__ == "__main__":
    command_line.run(main)
