"""Writes a SavedModel that restores pictures under one known canvas, with no training.

    python -m serving.key --canvas=mark.png --export_dir=runs/mark/export

In: the mark as it was laid over the pictures, an RGBA picture: a field larger than the pictures, of which each shows
some part, or a stamp that lies somewhere in them. Out: the next version, like `serving.export` writes it, for the same
servers and clients. A picture in which the canvas is not found comes back untouched, and so do pixels that it leaves
uncovered. The signature `restore` has further outputs:

    score      float32 [N]      how sure it is that the canvas is there
    transform  float32 [N, 4]   dy, dx, scale, rotation in radians of the canvas
    opacity    float32 [N]      that it was laid with, 0 where it was not found
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np
from absl import flags

from configs import canvas_file, command_line, entry_flags
from configs.command_line import UserError
from serving import saved_model

_FLAGS = flags.FlagValues()
_CANVAS = flags.DEFINE_string("canvas", None, "The mark, an RGBA picture.", flag_values=_FLAGS)
_EXPORT_DIR = flags.DEFINE_string(
    "export_dir", None, "The folder that holds the version folders; made if missing.", flag_values=_FLAGS
)
_VERSION = flags.DEFINE_integer(
    "version", None, "The version to write; default: one more than the largest.", flag_values=_FLAGS
)
_MAX_PIXELS = flags.DEFINE_integer(
    "max_pixels", saved_model.DEFAULT_MAX_PIXELS, "Larger pictures are refused.", 1, flag_values=_FLAGS
)


def key(
    canvas: str, export_dir: str, version: int | None = None, max_pixels: int = saved_model.DEFAULT_MAX_PIXELS
) -> pathlib.Path:
    """Writes a SavedModel for a canvas.

    Args:
      canvas: path of an RGBA picture.
      export_dir, version, max_pixels: see `saved_model.write_restorer`.

    Returns:
      The version's folder.

    Raises:
      UserError: a canvas that cannot be used, the version exists, or `export_dir` cannot be written.
    """
    rgba = np.asarray(canvas_file.read(canvas))
    # Takes seconds to import: not for --help and typing errors.
    from training.keyed.restore import FOUND, KeyedRestorer

    info = {"canvas": str(canvas), "canvas_size": list(rgba.shape[:2]), "found_from_score": FOUND}
    return saved_model.write_restorer(
        KeyedRestorer(rgba), export_dir=export_dir, info=info, version=version, max_pixels=max_pixels
    )


def main(argv: Sequence[str]) -> None:
    """Reads the flags and exports."""
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}; everything is a flag here, --help lists them")
    for flag in (_CANVAS, _EXPORT_DIR):
        if not flag.value:
            raise UserError(f"--{flag.name} is missing; python -m serving.key --help shows a whole command")
    path = key(_CANVAS.value, _EXPORT_DIR.value, _VERSION.value, _MAX_PIXELS.value)
    print(f"exported {path}; serve it with python -m serving.server --model_base_path={path.parent}")


def run() -> None:
    """The console script."""
    entry_flags.adopt(_FLAGS)
    command_line.run(main)


if __name__ == "__main__":
    run()
