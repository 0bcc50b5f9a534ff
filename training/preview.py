r"""Shows what a corruption spec does to images.

    python -m training.preview --spec='watermark:canvas=mark.png,scale=0.5..1.5+jpeg:quality=60..90' \
        --images=photos --out=sheet.png

In: a folder of images, or one image.

Out: a PNG. Each row shows one image: the original, then the image corrupted with several seeds, each captioned with its
seed. With --alpha, another row below shows what the overlay covers. In training, the same seed gives the same overlay.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from absl import flags
from PIL import Image

from common import command_line, files
from common.command_line import UserError
from common.images import is_image_name
from training import corruption
from training.evaluation.contact_sheet import contact_sheet

_SPEC = flags.DEFINE_string("spec", None, "The corruption spec.", required=True)
_IMAGES = flags.DEFINE_string("images", None, "A folder of pictures, or one picture.", required=True)
_OUT = flags.DEFINE_string("out", "sheet.png", "The PNG to write.")
_ROWS = flags.DEFINE_integer("rows", 4, "Pictures shown, at most.", 1)
_COLUMNS = flags.DEFINE_integer("columns", 4, "Seeds tried on each.", 1)
_SIDE = flags.DEFINE_integer("side", 256, "Side of the crop shown, in pixels.", 1)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the first column.")
_ALPHA = flags.DEFINE_bool("alpha", False, "Show below each row what the overlay covers.")


def _read_crop(path: Path, side: int) -> np.ndarray:
    """Reads the center of an image as uint8 `[side, side, 3]`; a smaller image is enlarged to fit."""
    try:
        with Image.open(path) as image:
            picture = image.convert("RGB")
    except OSError as error:
        raise UserError(f"picture {path}: cannot be read ({error}); take it out of --images") from None
    enlarge = side / min(picture.size)
    if enlarge > 1.0:
        picture = picture.resize([max(side, round(length * enlarge)) for length in picture.size])
    left, top = ((length - side) // 2 for length in picture.size)
    return np.asarray(picture.crop((left, top, left + side, top + side)))


def preview(
    spec: str,
    images: str,
    out: str,
    rows: int = 4,
    columns: int = 4,
    side: int = 256,
    seed: int = 0,
    alpha: bool = False,
) -> None:
    """Writes a contact sheet.

    Args:
      spec: a corruption spec, see `training.corruption.spec`.
      images: a folder of images, or one image.
      out: the PNG to write.
      rows: maximum number of images shown.
      columns: seeds tried on each image.
      side: side of the crop shown, in pixels.
      seed: seed of the first column; each further column adds 1.
      alpha: whether to show below each row what the overlay covers.

    Raises:
      UserError: the spec or a file cannot be used.
    """
    corrupt = corruption.build(spec)
    path = Path(images)
    if not path.exists():
        raise UserError(f"--images={images}: no such file or folder")
    shown_files = sorted(file for file in path.iterdir() if is_image_name(file)) if path.is_dir() else [path]
    if not shown_files:
        raise UserError(f"--images={images}: holds no pictures")
    shown, captions = [], []
    for number, file in enumerate(shown_files[:rows]):
        crop = _read_crop(file, side)
        clean = tf.tile(tf.cast(crop, tf.float32)[None] / 255.0, [columns, 1, 1, 1])
        seeds = tf.constant([[seed + column, number] for column in range(columns)], tf.int32)
        corrupted, covered = corrupt(clean, seeds)
        shown.append([crop, *tf.cast(tf.round(corrupted * 255.0), tf.uint8).numpy()])
        captions.append([file.name, *(f"seed {seed + column}, {number}" for column in range(columns))])
        if alpha:
            grey = np.repeat(tf.cast(tf.round(covered * 255.0), tf.uint8).numpy(), 3, axis=-1)
            shown.append([np.zeros_like(crop), *grey])
            captions.append([""] * (columns + 1))
    try:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        with files.whole(out) as temporary:
            contact_sheet(shown, captions).save(temporary, "PNG")
    except OSError as error:
        raise UserError(f"--out={out}: cannot be written ({error.strerror})") from None


def main(argv: Sequence[str]) -> None:
    """Reads the flags and writes the sheet."""
    command_line.refuse_positional(argv)
    preview(_SPEC.value, _IMAGES.value, _OUT.value, _ROWS.value, _COLUMNS.value, _SIDE.value, _SEED.value, _ALPHA.value)
    print(_OUT.value)


def run() -> None:
    """Entry point of the console script."""
    command_line.run(main)


if __name__ == "__main__":
    run()
