"""Exports a trained network as a SavedModel that any TensorFlow server can load.

    python -m serving.export --workdir=runs/demo/train --export_dir=runs/demo/export

Input: a workdir of `python -m training.train` that has a checkpoint. Output: the next version, published atomically.
Versions are never replaced, and a server that watches the folder switches to the new one automatically. Before it is
published, the SavedModel restores the run's validation crops in a fresh process: its PSNR must be within 0.1 dB of what
training recorded.

    EXPORT_DIR/
      1/
        saved_model.pb, variables/                   signatures serving_default, restore: serving/savedmodel/writer.py
        assets.extra/tf_serving_warmup_requests      replayed by servers before the version takes requests
        export_info.json                             config, step, validation figures, receptive field, tiling, package
                                                     versions
        restore.tflite, restore.onnx                 with --tflite and --onnx: for other runtimes, see docs/reuse.md
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from absl import flags, logging

from common import command_line, entry_flags
from common.command_line import UserError
from serving.savedmodel import portable, proof, writer

if TYPE_CHECKING:
    from training.run.exportable import Exportable

_FLAGS = flags.FlagValues()
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "The folder that training wrote its checkpoints into.", flag_values=_FLAGS
)
_EXPORT_DIR = flags.DEFINE_string(
    "export_dir", None, "The folder that holds the version folders; made if missing.", flag_values=_FLAGS
)
_VERSION = flags.DEFINE_integer(
    "version", None, "The version to write; default: one more than the largest.", flag_values=_FLAGS
)
_CAUTION = flags.DEFINE_float(
    "caution", 0.0, "How much surer than even, in logits, the network must be that a pixel is covered: 1 to 3 keep "
    "more of the uncovered picture as it is, and leave more of overlays.", -10.0, 10.0, flag_values=_FLAGS,
)  # fmt: skip
_TILE = flags.DEFINE_integer(
    "tile", None, "Side of a tile in pixels; default: 512, or five times the halo if more.", 1, flag_values=_FLAGS
)
_MAX_UNTILED_PIXELS = flags.DEFINE_integer(
    "max_untiled_pixels", None, "Larger pictures are tiled; default: a tile with its halo.", 0,
    flag_values=_FLAGS,
)  # fmt: skip
_MAX_PIXELS = flags.DEFINE_integer(
    "max_pixels", writer.DEFAULT_MAX_PIXELS, "Larger pictures are refused.", 1, flag_values=_FLAGS
)
_TFLITE = flags.DEFINE_boolean(
    "tflite", False, f"Also write {portable.TFLITE_FILE}, for TensorFlow Lite; without tiling.", flag_values=_FLAGS
)
_ONNX = flags.DEFINE_boolean(
    "onnx", False, f"Also write {portable.ONNX_FILE}, for onnxruntime and others; without tiling; needs the extra "
    "of that name.", flag_values=_FLAGS,
)  # fmt: skip


def export(
    workdir: str,
    export_dir: str,
    *,
    caution: float = 0.0,
    version: int | None = None,
    tile: int | None = None,
    max_untiled_pixels: int | None = None,
    max_pixels: int = writer.DEFAULT_MAX_PIXELS,
    tflite: bool = False,
    onnx: bool = False,
) -> pathlib.Path:
    """Exports the network that training left in `workdir`.

    Args:
      workdir: the training run's folder.
      export_dir: the model's folder, which holds the version folders; created if missing.
      caution: amount to lower the network's overlay logits by; 0 leaves the network unchanged.
      version: the version's number; default: one more than the largest.
      tile: side in pixels of the part that a tile contributes; default: 512, or five times the halo if larger.
      max_untiled_pixels: larger batches are tiled; default: the pixels of a tile with its halo.
      max_pixels: larger images are rejected based on their header.
      tflite: also write `restore.tflite`.
      onnx: also write `restore.onnx`.

    Returns:
      The version's folder.

    Raises:
      UserError: `workdir` has no checkpoint, the version exists, `export_dir` cannot be written, `onnx` is set without
        the extra of that name, or the SavedModel's PSNR differs from what the run's validation recorded.
    """
    if onnx:
        portable.require_onnx()
    # These imports take seconds; --help and mistyped flags should not wait for them.
    from training.models import head
    from training.run import exportable

    trained = exportable.load(workdir)
    if caution:
        head.be_cautious(trained.network, caution)
    prove = _proof(workdir, trained, caution)
    return writer.write_saved_model(
        trained.network,
        stride=trained.stride,
        halo=trained.halo,
        info={**trained.info, "caution": caution},
        export_dir=export_dir,
        version=version,
        tile=tile,
        max_untiled_pixels=max_untiled_pixels,
        max_pixels=max_pixels,
        tflite=tflite,
        onnx=onnx,
        prove=prove,
    )


def _proof(workdir: str, trained: Exportable, caution: float) -> writer.Proof | None:
    """Compares the export with the run's validation; returns None, with a warning, if the crops no longer exist."""
    from training.run import validation_samples
    from training.run.workdir import read_config
    from training.validation import make_restore

    try:
        crops = validation_samples.load(workdir, read_config(workdir))
    except UserError as error:
        logging.warning("the export is not compared with the run's validation, whose crops are gone (%s)", error)
        return None
    recorded, source = trained.info["validation_psnr"], f"the run's validation at step {trained.info['step']}"
    if caution:
        recorded = crops.judge(make_restore(trained.network)(crops.corrupted / np.float32(255.0)))["psnr"]
        source = f"the network with --caution={caution:g}"

    def prove(folder: pathlib.Path, _: writer.RestorePictures) -> None:
        measured = crops.judge(proof.outputs(folder, crops.corrupted)["restored"])["psnr"]
        proof.require(measured, recorded, source)
        logging.info("in a fresh process the export restores the validation crops to %.2f dB, as recorded", measured)

    return prove


def main(argv: Sequence[str]) -> None:
    """Reads the flags and exports."""
    command_line.refuse_positional(argv)
    workdir, export_dir = command_line.required("serving.export", _WORKDIR, _EXPORT_DIR)
    path = export(
        workdir,
        export_dir,
        caution=_CAUTION.value,
        version=_VERSION.value,
        tile=_TILE.value,
        max_untiled_pixels=_MAX_UNTILED_PIXELS.value,
        max_pixels=_MAX_PIXELS.value,
        tflite=_TFLITE.value,
        onnx=_ONNX.value,
    )
    print(f"exported {path}; serve it with python -m serving.server --model_base_path={path.parent}")


def run() -> None:
    """The console script."""
    entry_flags.adopt(_FLAGS)
    command_line.run(main)


if __name__ == "__main__":
    run()
