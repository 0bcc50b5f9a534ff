r"""Measures whether two workers train as one does: the same recipe, global batch and seed, float32.

Each worker reads shards of its own, so two of them see other crops than one. The comparison is therefore made twice.

On one picture, mirror image of itself and of a crop's size, every batch is the same whoever reads it, and overlays are
drawn by step and place in the global batch: the curves must agree but for rounding.

    workers_same_crops_loss      greatest difference of the loss, in percent of one worker's
    workers_same_crops_psnr      greatest difference of the validation PSNR, dB

On the photographs that scikit-image and scikit-learn ship, one worker trains twice (which shard is read sooner differs
from run to run) and two workers once; the curves are smoothed over the steps between two validations.

    workers_photographs_loss       greatest difference of two workers' loss from the nearer run of one, in percent of it
    workers_photographs_psnr       greatest difference of the validation PSNR likewise, dB
    workers_photographs_last_psnr  that of the last validation
    workers_spread_loss, workers_spread_psnr, workers_spread_last_psnr
                                   the same of the two runs of one worker from each other, for comparison

Out: a line for each figure, and the curves as a table, for docs/scale.md. It says nothing of speed: both workers share
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
    """What a run reported: by step, the loss and, of fewer steps, validation's PSNR in dB."""

    loss: dict[int, float]
    psnr: dict[int, float]

    def smoothed_loss(self) -> dict[int, float]:
        """By step of validation, the mean of the losses since the one before."""
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
    """Files of different bytes that show one picture: a crop of a photograph beside its mirror image."""
    folder.mkdir()
    with Image.open(sorted(photographs.iterdir())[0]) as photograph:
        pixels = np.asarray(photograph.convert("RGB"))
    middle = [size // 2 for size in pixels.shape[:2]]
    half = pixels[middle[0] - _CROP // 2 :, middle[1] :][:_CROP, : _CROP // 2]
    picture = Image.fromarray(np.concatenate([half, half[:, ::-1]], axis=1))
    for index in range(2 * _SHARDS):
        text = PngImagePlugin.PngInfo()
        text.add_text("copy", str(index))  # equal files are left out of a dataset
        picture.save(folder / f"{index}.png", pnginfo=text)


def _greatest(ours: dict[int, float], *others: dict[int, float], relative: bool = False) -> float:
    """The greatest difference of a curve, at any step, from the nearest of others; in percent if `relative`."""
    return max(
        min(abs(value - other[step]) / (0.01 * other[step] if relative else 1.0) for other in others)
        for step, value in ours.items()
    )


def measure(folder: Path, quick: bool) -> None:
    """Trains five times and prints the figures.

    Args:
      folder: an empty folder.
      quick: fewer steps.
    """
    sample_photos.write_coco_folder(str(folder / "photos"))
    photographs = folder / "photos" / "images"
    # Shards so small that there are two for each worker.
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
