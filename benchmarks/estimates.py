r"""Measures `preprocessing.watermark estimate`: a mark out of 100 pictures, against the file that it was laid from.

    --photos=DIR     COCO val2017: python -m preprocessing.download --dataset=coco-val2017 --dest=coco
    --canvas=FILE    an RGBA PNG; default: `stamp` of `benchmarks.data.marks`
    --pictures=100   that the mark is estimated from

Out: a line for each figure. The mark lies at the same distance from the bottom right corner of the pictures,
opacity 0.88 to 0.97, without JPEG.

    estimate_alpha_error         mean over covered pixels, of 1: the estimate as opaque as each picture was found to
                                 have it, against the true mark as it was laid there
    estimate_alpha_error_mean    the same of the estimate itself against the mark of the mean opacity
    estimate_keyed_loss          dB: keyed restoration with the true mark less that with the estimated one, over covered
                                 pixels of crops of 30 other pictures; estimate_keyed_loss_jpeg as JPEG of quality 90

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

_FROM_CORNER = (12, 15)  # pixels below and right of the mark
_SIDE, _CROPS = 256, 30
_SET_ASIDE = 50  # pictures, for the crops: the mark is estimated from others


def _marked_pictures(
    photographs: Sequence[Path], canvas: Image.Image, count: int
) -> tuple[list[marked.Laid], list[tuple[int, int]]]:
    """Pictures with the mark near the bottom right corner, and its own top left corner there."""
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
    """The estimated alpha as it lies over the true canvas's rectangle in a picture, float64 in 0..1."""
    alpha = Image.fromarray(found.canvas[..., 3])
    dy, dx = found.corners[number] - corner
    whole = Image.new("L", size[::-1])
    whole.paste(alpha, (int(dx), int(dy)))
    return np.asarray(whole) / 255.0


def _alpha_errors(found: Estimate, laid: Sequence[marked.Laid], corners: Sequence[tuple[int, int]]) -> np.ndarray:
    """Mean errors over covered pixels: at each picture's opacity, and against the mean opacity."""
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
      photographs: pictures; the first are judged on, and the mark is estimated from the others.
      path: the mark.
      folder: an empty folder.
      count: pictures that the mark is estimated from.
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
