r"""Exports a SavedModel that removes one known watermark; needs no training.

    python -m serving.key --canvas=mark.png --export_dir=runs/mark/export

    python -m serving.key --canvas=mark.png --export_dir=runs/mark/export \
        --refine=refine --refine.data.dir=tfrecords --workdir=runs/mark/refine

The second command also fine-tunes the repair network on that mark over your own images.

Input: the mark ("canvas") as it was applied, an RGBA image: either a field larger than the images, of which each shows
some part, or a stamp that appears somewhere in them, once or several times.

Output: the next version, in the format of `serving.export`, for the same servers and clients. If the canvas is not
found, the image is returned untouched; pixels that the canvas does not cover never change. Additional outputs:

    found      bool [N]         whether the canvas was found
    score      float32 [N]      confidence that the canvas is there
    transform  float32 [N, 4]   the canvas's dy, dx, scale, rotation in radians
    opacity    float32 [N]      opacity that the canvas was applied with; 0 if not found

All but `transform` are also outputs of `serving_default`. Before the version is published, the SavedModel restores a
marked sample in a fresh process; its PSNR must be within 0.1 dB of what this process gets.
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Sequence

import ml_collections
import numpy as np
from absl import flags, logging

import pretrained
from common import canvas_file, command_line, entry_flags, recipe_flag
from common.command_line import UserError
from serving.savedmodel import proof, sample, writer

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
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "That run's folder; the same command continues from there.", flag_values=_FLAGS
)
_MAX_PIXELS = flags.DEFINE_integer(
    "max_pixels", writer.DEFAULT_MAX_PIXELS, "Larger pictures are refused.", 1, flag_values=_FLAGS
)


def _range(flag: str, text: str, within: tuple[float, float]) -> tuple[float, float]:
    from training.corruption.spec import Range

    try:
        value = Range.parse(text, within)
    except ValueError as error:
        raise UserError(f"--{flag}={text}: {error}") from None
    return value.low, value.high


def refine(config: ml_collections.ConfigDict, canvas: str, workdir: str, repair: str | None = None) -> bool:
    """Fine-tunes the repair network for a canvas.

    Args:
      config: a repair network recipe such as `refine`. If `source` is empty it is set to the canvas; if `init` is
        empty, to the network to start from.
      canvas: path of an RGBA image.
      workdir: the run's folder.
      repair: workdir of the repair network to start from; None for the bundled one.

    Returns:
      True if training finished; False if a signal stopped it.

    Raises:
      UserError: the recipe is not for a repair network, `repair` is "", or the recipe cannot be run.
    """
    if config.model.name != "repair":
        raise UserError(f"--refine: config.model.name is {config.model.name!r}; name a recipe such as refine")
    if repair == "":
        raise UserError("--repair= and --refine contradict: there is no network to refine")
    from common.stopping import stop_asked
    from training import loop
    from training.distributed import devices

    with config.unlocked():
        config.source = config.source or f"watermark:canvas={canvas},opacity=0.4..1"
        config.init = config.init or repair or str(pretrained.REPAIR)
    config.lock()
    precision, stop = devices.choose_precision("auto"), stop_asked()
    strategy, jit_compile = devices.strategy("auto"), devices.use_jit("auto")
    loop.train_and_evaluate(config, workdir, strategy, jit_compile, stop=stop, precision=precision)
    return not stop.is_set()


def key(
    canvas: str,
    export_dir: str,
    *,
    repair: str | None = None,
    scale: str = "0.5..2",
    rotate: str = "-3..3",
    version: int | None = None,
    max_pixels: int = writer.DEFAULT_MAX_PIXELS,
) -> pathlib.Path:
    """Writes a SavedModel for a canvas.

    Args:
      canvas: path of an RGBA image.
      export_dir: the model's folder, which holds the version folders; created if missing.
      repair: a repair network's workdir; None for the bundled one, "" for no repair.
      scale: scales to search for the mark at: a number or a range, within 0.25 to 4.
      rotate: rotations to search, in degrees: a number or a range, within -45 to 45.
      version: the version's number; default: one more than the largest.
      max_pixels: larger images are rejected based on their header.

    Returns:
      The version's folder.

    Raises:
      UserError: invalid canvas, workdir or range, the version exists, or `export_dir` cannot be written.
    """
    rgba = np.asarray(canvas_file.read(canvas))
    # These imports take seconds; --help and mistyped flags should not wait for them.
    from training.keyed.finder import FOUND
    from training.keyed.restore import KeyedRestorer
    from training.run import exportable

    scales, degrees = _range("scale", scale, (0.25, 4.0)), _range("rotate", rotate, (-45.0, 45.0))
    workdir = str(pretrained.REPAIR) if repair is None else repair
    network = exportable.load(workdir, is_repair=True) if workdir else None
    restorer = KeyedRestorer(rgba, network, scales, degrees)
    info = {
        "canvas": str(canvas),
        "canvas_size": list(rgba.shape[:2]),
        "scale": scale,
        "rotate": rotate,
        "repair": network.info if network else None,
        "found_from_score": FOUND,
    }
    return writer.write_restore_function(
        restorer,
        export_dir=export_dir,
        info=info,
        version=version,
        max_pixels=max_pixels,
        variables=restorer.variables,
        prove=functools.partial(_prove, rgba),
    )


def _prove(rgba: np.ndarray, folder: pathlib.Path, restore: writer.RestorePictures) -> None:
    """Compares the export in a fresh process with the same graph in this process, on a marked sample image."""
    import tensorflow as tf

    marked, clean = sample.marked(rgba)
    here = {name: output.numpy() for name, output in restore(tf.constant(marked[None])).items()}
    there = proof.outputs(folder, marked[None])

    def psnr(restored: np.ndarray) -> float:
        error = np.square(restored[0].astype(np.float64) - clean).mean()
        return float(10.0 * np.log10(255.0**2 / max(error, 1e-2)))

    proof.require(psnr(there["restored"]), psnr(here["restored"]), "the same graph in this process")
    if not there["found"][0]:
        logging.warning(
            "the mark is not found on a sample that carries it once, as it is: it is too small, too faint or has too "
            "few edges, and many images will be left as they are"
        )


def main(argv: Sequence[str]) -> None:
    """Reads the flags and exports."""
    command_line.refuse_positional(argv)
    canvas, export_dir = command_line.required("serving.key", _CANVAS, _EXPORT_DIR)
    repair = _REPAIR.value
    recipe = flags.FLAGS["refine"].value
    if recipe is not None:
        if not _WORKDIR.value:
            raise UserError("--workdir is missing: --refine keeps its checkpoints there")
        if not refine(recipe, canvas, _WORKDIR.value, repair):
            return
        repair = _WORKDIR.value
    path = key(
        canvas,
        export_dir,
        repair=repair,
        scale=_SCALE.value,
        rotate=_ROTATE.value,
        version=_VERSION.value,
        max_pixels=_MAX_PIXELS.value,
    )
    print(f"exported {path}; serve it with python -m serving.server --model_base_path={path.parent}")


def run() -> None:
    """The console script."""
    entry_flags.adopt(_FLAGS)
    # Parsing adds the recipe's fields as flags, which works only in the process's own flag set.
    recipe_flag.define("refine", None, "A recipe: fine-tune the repair network for this mark first.")
    command_line.run(main)


if __name__ == "__main__":
    run()
