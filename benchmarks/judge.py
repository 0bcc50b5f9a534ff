r"""Judges a SavedModel's restoration of photographs under marks, independently of the code that made it.

    python -m benchmarks.judge --model=runs/demo/export/1 --photos=coco/val2017 --canvases=marks --inpaint

In: --photos     JPEGs or PNGs; of each that is large enough, the middle 256 x 256
    --canvases   a folder of RGBA PNGs. One that is larger than a crop covers it with some part; a smaller one lies
                 inside. Both lie on whole pixels, at a random place and an opacity of 0.88 to 0.97

Out: a line for each canvas: PSNR in dB, means over crops, of covered pixels (opacity above 0.02), of the others, and of
all; with --inpaint, also what `cv2.inpaint` (Telea's method) makes of the covered pixels when it is told exactly which
they are.

NumPy and Pillow lay the marks and measure, and TensorFlow loads the model: nothing of `preprocessing`, `training` or
`serving` is imported, so a mistake there cannot hide itself here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import flags
from PIL import Image

from benchmarks.data import marked
from benchmarks.data.photographs import coco_photographs, define_photos_flag
from common import command_line, entry_flags
from common.command_line import UserError

_FLAGS = flags.FlagValues()
_PHOTOS = define_photos_flag(_FLAGS)
_MODEL = flags.DEFINE_string("model", None, "A SavedModel's version folder.", flag_values=_FLAGS)
_CANVASES = flags.DEFINE_string("canvases", None, "A folder of RGBA PNGs.", flag_values=_FLAGS)
_LIMIT = flags.DEFINE_integer("limit", 40, "Crops.", lower_bound=1, flag_values=_FLAGS)
_INPAINT = flags.DEFINE_bool("inpaint", False, "Compare with cv2.inpaint and the true mask.", flag_values=_FLAGS)

_SIDE = 256
_SEED = 7
_INPAINTING_RADIUS = 3
# 68 dB at most, so that one exact crop does not outweigh all others in a mean.
_LEAST_SQUARED_ERROR = 1e-2


class Judged(NamedTuple):
    """PSNR in dB, means over crops.

    Attributes:
      images: how many crops there were.
      covered_in, uncovered_in, psnr_in: of the marked crops: covered pixels, the others, all.
      covered_out, uncovered_out, psnr_out: of the restored ones.
      covered_inpainted: of covered pixels that Telea's method filled in; NaN if that was not asked for.
    """

    images: int
    covered_in: float
    uncovered_in: float
    psnr_in: float
    covered_out: float
    uncovered_out: float
    psnr_out: float
    covered_inpainted: float = math.nan


def _psnr(picture: np.ndarray, clean: np.ndarray, where: np.ndarray) -> float:
    if not where.any():
        return math.nan
    error = np.square(picture.astype(np.float64) - clean)[where].mean()
    return 10 * math.log10(255**2 / max(error, _LEAST_SQUARED_ERROR))


def _inpainted(laid: marked.Laid) -> np.ndarray:
    try:
        import cv2
    except ImportError:
        raise UserError("OpenCV is not installed; pip install 'opencv-python-headless<5'") from None
    return cv2.inpaint(laid.picture, laid.covered.astype(np.uint8), _INPAINTING_RADIUS, cv2.INPAINT_TELEA)


def judge(
    model: Path, photographs: Sequence[Path], canvases: dict[str, Path], limit: int = 40, *, inpaint: bool = False
) -> dict[str, Judged]:
    """Judges a model.

    Args:
      model: a version's folder, with the signature `restore`: `images` uint8 `[N, H, W, 3]` to `restored`.
      photographs: pictures; the first `limit` of at least 256 x 256 are used.
      canvases: RGBA pictures by name.
      limit: crops.
      inpaint: also fill in the covered pixels by Telea's method.

    Raises:
      UserError: no picture is large enough, or OpenCV is missing.
    """
    import tensorflow as tf

    loaded = tf.saved_model.load(str(model))
    restore = loaded.signatures["restore"]
    crops = marked.centre_crops(photographs, _SIDE, limit)
    if not crops:
        raise UserError(f"no photograph has {_SIDE} x {_SIDE} pixels; name others with --photos")
    judged = {}
    for name, path in canvases.items():
        rng, canvas, rows = np.random.default_rng(_SEED), Image.open(path).convert("RGBA"), []
        for clean in crops:
            laid, _ = marked.lay(clean, canvas, rng)
            restored = restore(images=tf.constant(laid.picture[None]))["restored"].numpy()[0]
            everywhere = np.ones_like(laid.covered)
            row = [
                _psnr(picture, clean, where)
                for picture in (laid.picture, restored)
                for where in (laid.covered, ~laid.covered, everywhere)
            ]
            row.append(_psnr(_inpainted(laid), clean, laid.covered) if inpaint else math.nan)
            rows.append(row)
        means = [float(np.nanmean(column)) if not np.isnan(column).all() else math.nan for column in zip(*rows)]
        judged[name] = Judged(len(crops), *means)
    return judged


def main(argv: Sequence[str]) -> None:
    """Judges as the flags say."""
    command_line.refuse_positional(argv)
    for flag in (_MODEL, _CANVASES):
        if not flag.value:
            raise UserError(f"--{flag.name} is missing; python -m benchmarks.judge --help shows a whole command")
    canvases = {path.stem: path for path in sorted(Path(_CANVASES.value).glob("*.png"))}
    if not canvases:
        raise UserError(f"--canvases={_CANVASES.value}: no PNGs there")
    photographs = coco_photographs(_PHOTOS.value)
    judged = judge(Path(_MODEL.value), photographs, canvases, _LIMIT.value, inpaint=_INPAINT.value)
    for name, found in judged.items():
        inpainted = f" (inpainted {found.covered_inpainted:.2f} dB)" if _INPAINT.value else ""
        print(
            f"{name}: covered pixels {found.covered_in:.2f} -> {found.covered_out:.2f} dB{inpainted}, others "
            f"{found.uncovered_out:.2f} dB, all {found.psnr_in:.2f} -> {found.psnr_out:.2f} dB, {found.images} crops"
        )


def run() -> None:
    """The command."""
    entry_flags.adopt(_FLAGS)
    command_line.run(main)


if __name__ == "__main__":
    run()
