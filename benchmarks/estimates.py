r"""Measures `preprocessing.watermark estimate`: a watermark estimated from 100 images, against the original file.

    --photos=DIR     COCO val2017: python -m preprocessing.download --dataset=coco-val2017 --dest=coco
    --canvas=FILE    an RGBA PNG; default: `stamp` of `benchmarks.data.marks`
    --pictures=100   number of images to estimate the watermark from

Out: one line per figure. The watermark lies at the same distance from the bottom right corner of every image, with an
opacity of 0.88 to 0.97, without JPEG compression.

    estimate_alpha_error         mean absolute error of alpha (0..1) over covered pixels: the estimate times the opacity
                                 estimated for each image, against the true watermark as laid in that image
    estimate_alpha_error_mean    the same for the estimate itself, against the true watermark at the mean opacity
    estimate_keyed_loss          dB over covered pixels that keyed restoration loses with the estimated instead of the
                                 true watermark, on crops of 30 other images; estimate_keyed_loss_jpeg: the same on
                                 JPEGs of quality 90

Command:

    python -m benchmarks.estimates
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from absl import flags
from PIL import Image

from benchmarks.data import marked, marks
from benchmarks.data.photographs import coco_photographs, define_photos_flag
from benchmarks.measuring.figure import report
from common import command_line
from common.command_line import UserError
from preprocessing.marks.from_pictures.estimate import Estimate, estimate
from serving.key import key

_PHOTOS = define_photos_flag()
_CANVAS = flags.DEFINE_string("canvas", None, "An RGBA PNG; default: one that is drawn here.")
_PICTURES = flags.DEFINE_integer("pictures", 100, "That the mark is estimated from.", lower_bound=5)

_FROM_CORNER = (12, 15)  # pixels below and to the right of the watermark
_SIDE, _CROPS = 256, 30
_SET_ASIDE = 50  # images reserved for the crops; the watermark is estimated from the others


def _marked_pictures(
    photographs: Sequence[Path], canvas: Image.Image, count: int
) -> tuple[list[marked.Laid], list[tuple[int, int]]]:
    """Lays the watermark near the bottom right corner of each image; also returns the watermark's top left corners."""
    rng, laid, corners = np.random.default_rng(5), [], []
    for path in photographs:
        clean = np.asarray(Image.open(path).convert("RGB"))
        corner = tuple(side - length - off for side, length, off in zip(clean.shape, canvas.size[::-1], _FROM_CORNER))
        if min(corner) >= 0:
            laid.append(marked.lay_at(clean, canvas, corner, rng.uniform(0.88, 0.97)))
            corners.append(corner)
        if len(laid) == count:
            return laid, corners
    raise UserError(f"--photos={_PHOTOS.value}: only {len(laid)} pictures are large enough, {count} are needed")


def _alpha_at(found: Estimate, number: int, corner: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Returns the estimated alpha within the true canvas's rectangle in an image, float64 in 0..1."""
    alpha = Image.fromarray(found.canvas[..., 3])
    dy, dx = found.corners[number] - corner
    whole = Image.new("L", size[::-1])
    whole.paste(alpha, (int(dx), int(dy)))
    return np.asarray(whole) / 255.0


def _alpha_errors(found: Estimate, laid: Sequence[marked.Laid], corners: Sequence[tuple[int, int]]) -> np.ndarray:
    """Returns mean errors of alpha over covered pixels: at each image's opacity, and at the mean opacity."""
    numbers = np.flatnonzero(found.agreed)
    rectangles = [tuple(slice(start, None) for start in corners[number]) for number in numbers]
    size = tuple(
        int(np.min([laid[n].layer[part].shape[axis] for n, part in zip(numbers, rectangles)])) for axis in (0, 1)
    )
    true = np.stack([laid[n].layer[part][: size[0], : size[1], 3] / 255 for n, part in zip(numbers, rectangles)])
    covered = true.min(axis=0) > 0.02
    errors, estimated = [], _alpha_at(found, numbers[0], corners[numbers[0]], size)
    for number, there in zip(numbers, true):
        of_picture = _alpha_at(found, number, corners[number], size) * found.opacities[number]
        errors.append(np.abs(of_picture - there)[covered].mean())
    return np.array([np.mean(errors), np.abs(estimated - true.mean(axis=0))[covered].mean()])


def _keyed_psnr(export: Path, laid: Sequence[marked.Laid]) -> float:
    restore = tf.saved_model.load(str(export)).signatures["restore"]
    return float(
        np.mean(
            [marked.psnr(restore(images=tf.constant(one.picture[None]))["restored"].numpy()[0], one) for one in laid]
        )
    )


def measure(photographs: Sequence[Path], path: Path, folder: Path, count: int) -> None:
    """Prints the figures.

    Args:
      photographs: images; crops come from the first `_SET_ASIDE`, and the watermark is estimated from the others.
      path: the watermark file.
      folder: an empty folder.
      count: number of images to estimate the watermark from.
    """
    canvas = Image.open(path).convert("RGBA")
    laid, corners = _marked_pictures(photographs[_SET_ASIDE:], canvas, count)
    found = estimate([one.picture for one in laid])
    print(found.note)
    at_each, at_mean = _alpha_errors(found, laid, corners)
    report("estimate_alpha_error", at_each, "of 1", 0.03, at_least=False)
    report("estimate_alpha_error_mean", at_mean, "of 1", 0.03, at_least=False)

    Image.fromarray(found.canvas).save(folder / "estimated.png")
    exports = [
        key(str(source), str(folder / name)) for source, name in ((path, "true"), (folder / "estimated.png", "own"))
    ]
    crops = marked.centre_crops(photographs[:_SET_ASIDE], _SIDE, _CROPS)
    rng = np.random.default_rng(7)
    lossless = [marked.lay(clean, canvas, rng)[0] for clean in crops]
    for suffix, pictures in (("", lossless), ("_jpeg", [marked.as_jpeg(one) for one in lossless])):
        true, own = (_keyed_psnr(export, pictures) for export in exports)
        print(f"keyed restoration{suffix}: with the true mark {true:.1f} dB, with the estimated one {own:.1f} dB")
        report(f"estimate_keyed_loss{suffix}", true - own, "dB", 4.0, at_least=False)


def main(argv: Sequence[str]) -> None:
    """Measures."""
    command_line.refuse_positional(argv)
    photographs = coco_photographs(_PHOTOS.value)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(_CANVAS.value or marks.paths(None, Path(folder, "marks"))["stamp"])
        measure(photographs, path, Path(folder), _PICTURES.value)


if __name__ == "__main__":
    command_line.run(main)
