r"""Measures how well a SavedModel restores watermarked photographs, independently of the code that made it.

    python -m benchmarks.judge --model=runs/demo/export/1 --photos=coco/val2017 --canvases=marks --inpaint

In: --photos     JPEGs or PNGs; the center 256 x 256 of each image that is large enough
    --canvases   a folder of RGBA PNGs. A canvas larger than the crop covers all of it with one of its parts; a smaller
                 one lies inside. Both lie at a random whole-pixel offset, with an opacity of 0.88 to 0.97

Out: one line per canvas: PSNR in dB, means over crops, over covered pixels (opacity above 0.02), over the others, and
over all; with --inpaint, also the PSNR of `cv2.inpaint` (Telea's method) on the covered pixels, when it is told exactly
which they are.

Watermarks are laid and results measured with NumPy and Pillow, and the model is loaded with TensorFlow. Nothing is
imported from `preprocessing`, `training` or `serving`, so an error there cannot hide itself here.
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
# In squared 8-bit levels: limits PSNR to 68 dB, so that one exact crop does not dominate a mean.
_LEAST_SQUARED_ERROR = 1e-2


class Judged(NamedTuple):
    """PSNR in dB, means over crops.

    Attributes:
      images: number of crops.
      covered_in, uncovered_in, psnr_in: of the watermarked crops, over covered pixels, uncovered pixels and all pixels.
      covered_out, uncovered_out, psnr_out: the same for the restored crops.
      covered_inpainted: over covered pixels filled in by Telea's method; NaN if not requested.
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
    """Evaluates a model.

    Args:
      model: a version's folder with the signature `restore`, which maps `images`, uint8 `[N, H, W, 3]`, to `restored`.
      photographs: images; the first `limit` of at least 256 x 256 are used.
      canvases: RGBA images by name.
      limit: maximum number of crops.
      inpaint: whether to also fill in the covered pixels by Telea's method.

    Returns:
      The results by canvas name.

    Raises:
      UserError: no image is large enough, or OpenCV is missing.
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
    """Evaluates according to the flags."""
    command_line.refuse_positional(argv)
    model, folder = command_line.required("benchmarks.judge", _MODEL, _CANVASES)
    canvases = {path.stem: path for path in sorted(Path(folder).glob("*.png"))}
    if not canvases:
        raise UserError(f"--canvases={folder}: no PNGs there")
    photographs = coco_photographs(_PHOTOS.value)
    judged = judge(Path(model), photographs, canvases, _LIMIT.value, inpaint=_INPAINT.value)
    for name, found in judged.items():
        inpainted = f" (inpainted {found.covered_inpainted:.2f} dB)" if _INPAINT.value else ""
        print(
            f"{name}: covered pixels {found.covered_in:.2f} -> {found.covered_out:.2f} dB{inpainted}, others "
            f"{found.uncovered_out:.2f} dB, all {found.psnr_in:.2f} -> {found.psnr_out:.2f} dB, {found.images} crops"
        )


def run() -> None:
    """Entry point of the command."""
    entry_flags.adopt(_FLAGS)
    command_line.run(main)


if __name__ == "__main__":
    run()
