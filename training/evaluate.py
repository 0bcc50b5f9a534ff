r"""Evaluates a trained model on images and writes a report that opens in a browser.

    python -m training.evaluate --model=runs/mine/export --images=photos --out=report \
        --spec='watermark:canvas=mark.png,opacity=0.5..1' --spec='watermark:canvas=mark.png+jpeg:quality=60..90'

In: a model and clean images. The model is an export from `serving.export` (one version, or the folder of versions, of
which the newest is used) or a workdir of `training.train` (its weights with the best validation result are used). The
images are a file, or a folder including its subfolders. Each image is center-cropped, overlaid as each spec says, and
restored. Image n gets the overlay that `training.preview` shows for seed "--seed, n" with the same --side.

Out: REPORT/
    index.html      one page, needs no network: figures, a histogram, the worst and the best images to compare
    summary.json    `model`, `arguments`, `pictures` (found, evaluated, failed with reasons), and for each spec the
                    means and medians of the figures below
    pictures.csv    one row per image and spec: `number`, `picture`, `spec`, `width`, `height`, `covered_share`, then
                    FIGURE_in (overlaid image), FIGURE_out (restored image) and FIGURE_gain, where FIGURE is
        psnr              over all pixels, dB; at most 68.13, which stands for an exact image
        covered_psnr      over pixels that the overlay covered
        uncovered_psnr    over the other pixels
        ssim              over all pixels, -1..1
        covered_ssim      over windows centered on covered pixels

A cell is empty where its figure is undefined: there are no such pixels, or (SSIM) a side is below 11 pixels. The folder
appears once it is complete. An image that cannot be evaluated is reported, counted and listed; the rest are still
evaluated, and the exit code is 1. Only one image is in memory at a time. Whole images (--side=0) of many megapixels
need an export, which restores them in tiles.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from absl import flags
from tqdm import tqdm

from common import command_line, entry_flags
from common.command_line import UserError
from training import corruption
from training.evaluation import figures, model, page, pictures, report_folder
from training.evaluation.gallery import Gallery

# A separate flag registry, see common/entry_flags.py: absl's flags are global by name and `training.preview` also
# defines --images and --out, so otherwise a notebook could not import both modules.
_FLAGS = flags.FlagValues()
_MODEL = flags.DEFINE_string("model", None, "An export, one version of it, or a training workdir.", flag_values=_FLAGS)
_IMAGES = flags.DEFINE_string("images", None, "A folder of clean pictures, or one picture.", flag_values=_FLAGS)
_SPEC = flags.DEFINE_multi_string("spec", None, "A corruption spec; repeat the flag for more.", flag_values=_FLAGS)
_OUT = flags.DEFINE_string("out", "report", "The report's folder.", flag_values=_FLAGS)
_SIDE = flags.DEFINE_integer(
    "side", 256, "Side of the centre crop in pixels, at most; 0: whole pictures.", 0, flag_values=_FLAGS
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the overlays.", -(2**31), 2**31 - 1, flag_values=_FLAGS)
_SHOWN = flags.DEFINE_integer(
    "shown", 6, "Worst pictures shown a spec, and as many of the best.", 0, flag_values=_FLAGS
)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace the report that is there.", flag_values=_FLAGS)

_COLUMNS = ("number", "picture", "spec", "width", "height", "covered_share", *figures.FIGURES)


def _overlay(corrupt: corruption.Corruption, clean: np.ndarray, seed: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Overlays an image, uint8 `[H, W, 3]`; returns the overlaid image and bool `[H, W]`, the covered pixels."""
    corrupted, alpha = corrupt(tf.cast(clean, tf.float32)[None] / 255.0, tf.constant([seed], tf.int32))
    return tf.cast(tf.round(corrupted * 255.0), tf.uint8)[0].numpy(), alpha[0, ..., 0].numpy() > corruption.COVERED


class _Part:
    """One spec: its corruption and its results."""

    def __init__(self, spec: str, shown: int):
        self.spec, self.corrupt = spec, corruption.build(spec)
        self.rows: list[dict[str, Any]] = []
        self.gallery = Gallery(shown)

    def line(self) -> str:
        """Returns the line that the command prints for this spec."""
        mean = {name: figure["mean"] for name, figure in figures.summarize(self.rows).items()}
        measure = self.gallery.measure
        pixels = "covered pixels" if measure == "covered_psnr" else "covers nothing; all pixels"
        return f"{self.spec}: {pixels} {mean[f'{measure}_in']:.2f} -> {mean[f'{measure}_out']:.2f} dB"


def _evaluate_picture(
    number: int, name: str, path: Path, parts: Sequence[_Part], trained: model.EvaluatedModel, side: int, seed: int
) -> list[tuple[dict[str, Any], np.ndarray, np.ndarray]]:
    """Returns, for each part, its row of figures, the overlaid image and the restored image."""
    clean, results = pictures.read_crop(path, side), []
    for part in parts:
        corrupted, covered = _overlay(part.corrupt, clean, (seed, number))
        restored = trained.restore(corrupted[None])[0]
        place = {
            "number": number,
            "picture": name,
            "spec": part.spec,
            "width": clean.shape[1],
            "height": clean.shape[0],
        }
        results.append((place | figures.judge(clean, corrupted, restored, covered), corrupted, restored))
    return results


def evaluate(
    model_path: str,
    images: str,
    specs: Sequence[str],
    out: str,
    side: int = 256,
    seed: int = 0,
    shown: int = 6,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Writes a report.

    Args:
      model_path: an export, one version of it, or a training workdir.
      images: a folder of clean images, or one image.
      specs: corruption specs, see `training.corruption.spec`.
      out: the report's folder.
      side: maximum side of the center crop, in pixels; 0 for whole images.
      seed: seed of the overlays.
      shown: how many of the worst images to show per spec, and how many of the best.
      overwrite: whether to replace an existing report.

    Returns:
      The contents of summary.json plus `lines`, one line per spec with its main figure.

    Raises:
      UserError: an argument cannot be used, or no image could be evaluated.
    """
    arguments = {
        "model": str(model_path),
        "images": str(images),
        "spec": list(specs),
        "out": str(out),
        "side": side,
        "seed": seed,
        "shown": shown,
        "overwrite": overwrite,
    }
    report_folder.check(out, overwrite)
    for spec in specs:
        if specs.count(spec) > 1:
            raise UserError(f"--spec={spec}: is given twice; give each spec once")
    parts = [_Part(spec, shown) for spec in specs]
    found = pictures.find(images)
    trained = model.load(model_path)
    failed = []
    with report_folder.new_report(out, overwrite) as report:
        with (
            open(report / report_folder.TABLE, "w", encoding="utf-8", newline="") as file,
            tqdm(found, desc="evaluating", unit="picture", disable=None) as bar,
        ):
            table = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
            table.writeheader()
            for number, (name, path) in enumerate(bar):
                try:
                    results = _evaluate_picture(number, name, path, parts, trained, side, seed)
                except (pictures.UnreadablePicture, tf.errors.OpError) as error:
                    reason = (str(error) or type(error).__name__).splitlines()[0]
                    failed.append({"picture": name, "reason": reason})
                    bar.write(f"failed: {name}: {reason}", file=sys.stderr)
                    continue
                for part, (row, corrupted, restored) in zip(parts, results):
                    table.writerow(row)
                    part.rows.append(row)
                    part.gallery.offer(row, corrupted, restored)
        if len(failed) == len(found):
            raise UserError(f"--images={images}: no picture could be evaluated; the first: {failed[0]['reason']}")
        summary = {
            "model": {
                "path": trained.path,
                "step": trained.info.get("step"),
                "validation_psnr": trained.info.get("validation_psnr"),
                "info": trained.info,
            },
            "arguments": arguments,
            "pictures": {"found": len(found), "evaluated": len(found) - len(failed), "failed": failed},
            "specs": [{"spec": part.spec, "figures": figures.summarize(part.rows)} for part in parts],
        }
        (report / report_folder.SUMMARY).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
        html = page.render(summary, [part.rows for part in parts], [part.gallery for part in parts])
        (report / report_folder.PAGE).write_text(html, encoding="utf-8")
    return summary | {"lines": [part.line() for part in parts]}


def main(argv: Sequence[str]) -> int:
    """Reads the flags, evaluates, and prints one line per spec."""
    command_line.refuse_positional(argv)
    model, images, spec = command_line.required("training.evaluate", _MODEL, _IMAGES, _SPEC)
    summary = evaluate(model, images, spec, _OUT.value, _SIDE.value, _SEED.value, _SHOWN.value, _OVERWRITE.value)
    print(*summary["lines"], Path(_OUT.value) / report_folder.PAGE, sep="\n")
    return 1 if summary["pictures"]["failed"] else 0


def run() -> None:
    """Entry point of the console script."""
    entry_flags.adopt(_FLAGS)
    command_line.run(main)


if __name__ == "__main__":
    run()
