"""Writes a SavedModel that restores pictures under one known canvas, with no training.

    python -m serving.key --canvas=mark.png --export_dir=runs/mark/export

In: the mark as it was laid over the pictures, an RGBA picture: a field larger than the pictures, of which each shows
some part, or a stamp that lies somewhere in them, once or several times.

Out: the next version, like `serving.export` writes it, for the same servers and clients. A picture in which the canvas
is not found comes back untouched, and so do pixels that it leaves uncovered. `restore` has further outputs:

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

# The repair network that comes with Cleanplate.
_PRETRAINED = pathlib.Path(__file__).parents[1] / "pretrained" / "repair"

_FLAGS = flags.FlagValues()
_CANVAS = flags.DEFINE_string("canvas", None, "The mark, an RGBA picture.", flag_values=_FLAGS)
_EXPORT_DIR = flags.DEFINE_string(
    "export_dir", None, "The folder that holds the version folders; made if missing.", flag_values=_FLAGS
)
_REPAIR = flags.DEFINE_string(
    "repair", None, "A repair network's workdir, empty for none; default: the one that comes along.", flag_values=_FLAGS
)
_SCALE = flags.DEFINE_string("scale", "0.5..2", "Scales that pictures may show the mark at.", flag_values=_FLAGS)
_ROTATE = flags.DEFINE_string("rotate", "-3..3", "Degrees that they may show it turned by.", flag_values=_FLAGS)
_VERSION = flags.DEFINE_integer(
    "version", None, "The version to write; default: one more than the largest.", flag_values=_FLAGS
)
_MAX_PIXELS = flags.DEFINE_integer(
    "max_pixels", saved_model.DEFAULT_MAX_PIXELS, "Larger pictures are refused.", 1, flag_values=_FLAGS
)


def _range(flag: str, text: str, within: tuple[float, float]) -> tuple[float, float]:
    from training.corruption.spec import Range

    try:
        value = Range.parse(text, within)
    except ValueError as error:
        raise UserError(f"--{flag}={text}: {error}") from None
    return value.low, value.high


def key(
    canvas: str,
    export_dir: str,
    *,
    repair: str | None = None,
    scale: str = "0.5..2",
    rotate: str = "-3..3",
    version: int | None = None,
    max_pixels: int = saved_model.DEFAULT_MAX_PIXELS,
) -> pathlib.Path:
    """Writes a SavedModel for a canvas.

    Args:
      canvas: path of an RGBA picture.
      repair: a repair network's workdir; the one that comes with Cleanplate if there is none; "" for no repair.
      scale: that pictures may show the mark at, a number or a range, within 0.25 to 4.
      rotate: degrees that they may show it turned by, likewise, within -45 to 45.
      export_dir, version, max_pixels: see `saved_model.write_restorer`.

    Returns:
      The version's folder.

    Raises:
      UserError: a canvas, workdir or range that cannot be used, the version exists, or `export_dir` cannot be written.
    """
    rgba = np.asarray(canvas_file.read(canvas))
    # Takes seconds to import: not for --help and typing errors.
    from training import exportable
    from training.keyed.finder import FOUND
    from training.keyed.restore import KeyedRestorer

    scales, degrees = _range("scale", scale, (0.25, 4.0)), _range("rotate", rotate, (-45.0, 45.0))
    network = exportable.load(str(_PRETRAINED) if repair is None else repair, is_repair=True) if repair != "" else None
    restorer = KeyedRestorer(rgba, network, scales, degrees)
    info = {
        "canvas": str(canvas),
        "canvas_size": list(rgba.shape[:2]),
        "scale": scale,
        "rotate": rotate,
        "repair": network.info if network else None,
        "found_from_score": FOUND,
    }
    return saved_model.write_restorer(
        restorer,
        export_dir=export_dir,
        info=info,
        version=version,
        max_pixels=max_pixels,
        variables=restorer.variables,
    )


def main(argv: Sequence[str]) -> None:
    """Reads the flags and exports."""
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}; everything is a flag here, --help lists them")
    for flag in (_CANVAS, _EXPORT_DIR):
        if not flag.value:
            raise UserError(f"--{flag.name} is missing; python -m serving.key --help shows a whole command")
    path = key(
        _CANVAS.value,
        _EXPORT_DIR.value,
        repair=_REPAIR.value,
        scale=_SCALE.value,
        rotate=_ROTATE.value,
        version=_VERSION.value,
        max_pixels=_MAX_PIXELS.value,
    )
    print(f"exported {path}; serve it with python -m serving.server --model_base_path={path.parent}")


def run() -> None:
    """The console script."""
    entry_flags.adopt(_FLAGS)
    command_line.run(main)


if __name__ == "__main__":
    run()
