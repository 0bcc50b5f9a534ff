"""Writes a restorer, such as a trained network, as a SavedModel that needs only TensorFlow.

EXPORT_DIR/
  1/                                  the version: by default the next number; never replaced
    saved_model.pb, variables/        the graph with both signatures, and the weights
    assets.extra/tf_serving_warmup_requests
    export_info.json                  where the weights come from, tiling, package versions
    restore.tflite, restore.onnx      optional: the same network for other runtimes, see portable.py

serving_default    image_bytes string [N] (JPEG, PNG, BMP, GIF; sizes may differ) -> restored_bytes string [N] (PNG)
restore            images uint8 [N, H, W, 3], any H, W >= 1 -> restored uint8 [N, H, W, 3]

Both signatures also have the restorer's additional outputs: for `serving.key`, these are `found`, `score`, `opacity`
and, only in `restore`, `transform`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.metadata
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Callable

import tensorflow as tf

from common import versions
from serving.savedmodel import image_codec, portable, tiling, warmup
from training.run.initial_weights import NETWORK_VARIABLES

DEFAULT_MODEL_NAME = "cleanplate"
DEFAULT_MAX_PIXELS = 100_000_000

_PACKAGES = ("cleanplate", "tensorflow-addons", "keras", "numpy", "tf2onnx", "onnx")

# Graph ops: uint8 [N, H, W, 3] to {"restored": uint8 [N, H, W, 3], …}.
RestorePictures = Callable[[tf.Tensor], dict[str, tf.Tensor]]
# Called before a written version is published, with its folder and with its graph, callable in this process. An
# exception prevents publication.
Proof = Callable[[pathlib.Path, RestorePictures], None]


class _Signatures(tf.Module):
    """The graph to save.

    It holds the restorer's variables but not the restorer itself: for every layer, Keras would add functions and
    metadata that no server reads and that tie the file to one version of Keras.
    """

    def __init__(
        self,
        restore_pictures: tf.types.experimental.ConcreteFunction,
        variables: Sequence[tf.Variable],
        max_pixels: int,
    ) -> None:
        super().__init__()
        setattr(self, NETWORK_VARIABLES, list(variables))  # tracked by tf.Module

        # Outputs with one value per image, such as whether a mark was found.
        figures = {
            name: tf.TensorSpec([], output.dtype)
            for name, output in restore_pictures.structured_outputs.items()
            if output.shape.rank == 1
        }

        def restore_one(data: tf.Tensor, index: tf.Tensor) -> dict[str, tf.Tensor]:
            colour, alpha = image_codec.decode(data, index, max_pixels)
            outputs = restore_pictures(colour[tf.newaxis])
            encoded = image_codec.encode_png(outputs["restored"][0], alpha)
            return {"restored_bytes": encoded, **{name: outputs[name][0] for name in figures}}

        def serving_default(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
            return tf.map_fn(
                lambda element: restore_one(*element),
                (image_bytes, tf.range(tf.size(image_bytes))),
                fn_output_signature={"restored_bytes": tf.TensorSpec([], tf.string), **figures},
                parallel_iterations=1,  # holds the pixels of only one image at a time
            )

        def restore(images: tf.Tensor) -> dict[str, tf.Tensor]:
            shape = tf.shape(images)
            has_pixels = tf.debugging.Assert(
                tf.reduce_all(shape >= 1), ["images: batch, height and width must be at least 1, got", shape]
            )
            with tf.control_dependencies([has_pixels]):
                images = tf.identity(images)
            return restore_pictures(images)

        self.serving_default = tf.function(
            serving_default, input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")]
        )
        self.restore = tf.function(
            restore, input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")]
        )


def _package_versions() -> dict[str, str]:
    """Returns the versions of the packages behind an export; packages that are not installed are omitted."""
    found = {"tensorflow": tf.__version__}  # not from metadata: its package has several possible names
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def write_restore_function(
    restore_pictures: RestorePictures,
    *,
    export_dir: str | os.PathLike,
    info: Mapping[str, Any] | None = None,
    version: int | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    model_name: str = DEFAULT_MODEL_NAME,
    variables: Sequence[tf.Variable] = (),
    further_files: Mapping[str, Callable[[pathlib.Path], None]] | None = None,
    prove: Proof | None = None,
) -> pathlib.Path:
    """Writes any restorer for images of any size as the next version under `export_dir`, atomically.

    Args:
      restore_pictures: graph ops from uint8 `[N, H, W, 3]`, any H, W >= 1, to a dictionary with `restored`, same shape
        and dtype, and any additional outputs.
      export_dir: the model's folder, which holds the version folders; created if missing.
      info: JSON-serializable description, written to export_info.json.
      version: the version's number; default: one more than the largest.
      max_pixels: larger images are rejected based on their header.
      model_name: the model's name in the warm-up requests.
      variables: the variables that `restore_pictures` reads.
      further_files: additional files by name in the version's folder; each value writes the file at the path it gets.
      prove: called with the version's folder and its graph; an exception prevents publication.

    Returns:
      The version's folder.

    Raises:
      UserError: the version exists, or `export_dir` cannot be written.
      ValueError: `info` is not JSON-serializable.
    """
    written = {
        **(info or {}),
        "model_name": model_name,
        "packages": _package_versions(),
        "max_pixels": max_pixels,
    }
    try:
        info_text = json.dumps(written, indent=2)
    except TypeError as error:
        raise ValueError(f"info must be JSON: {error}") from error
    with versions.new_version(export_dir, version) as new:
        # Trace once for both signatures, which halves the time. It also makes tracing errors surface here rather than
        # inside serving_default's tf.map_fn, where they would leave TensorFlow's variable scope in a state from which
        # no tf.distribute.Strategy can be entered.
        signature = [tf.TensorSpec([None, None, None, 3], tf.uint8)]
        traced = tf.function(restore_pictures, input_signature=signature).get_concrete_function()
        module = _Signatures(traced, variables, max_pixels)
        signatures = {"serving_default": module.serving_default, "restore": module.restore}
        tf.saved_model.save(module, os.fspath(new.folder), signatures=signatures)
        warmup.write_warmup_requests(new.folder, model_name)
        for name, write in (further_files or {}).items():
            write(new.folder / name)
        (new.folder / "export_info.json").write_text(info_text + "\n", encoding="utf-8")
        if prove:
            prove(new.folder, traced)
    return new.path


def write_saved_model(
    network: Callable[[tf.Tensor], tf.Tensor],
    *,
    stride: int,
    halo: int,
    export_dir: str | os.PathLike,
    info: Mapping[str, Any] | None = None,
    version: int | None = None,
    tile: int | None = None,
    max_untiled_pixels: int | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    model_name: str = DEFAULT_MODEL_NAME,
    tflite: bool = False,
    onnx: bool = False,
    prove: Proof | None = None,
) -> pathlib.Path:
    """Writes `network` as the next version under `export_dir`, atomically.

    Args:
      network: maps float32 `[N, H, W, 3]` in 0..1, H and W multiples of `stride`, to float32 of the same shape.
        A `tf.keras.Model`, a `tf.Module`, or a function; its weights are taken from its `variables`.
      stride: pixels; the input's sides must be multiples of this.
      halo: the receptive field: pixels on each side that can influence an output pixel.
      export_dir: the model's folder, which holds the version folders; created if missing.
      info: JSON-serializable description of the weights (config, step, validation figures), written to
        export_info.json.
      version: the version's number; default: one more than the largest.
      tile: side in pixels of the part that a tile contributes; default: 512, or five times the halo if larger.
      max_untiled_pixels: larger batches are tiled; default: the pixels of a tile with its halo.
      max_pixels: larger images are rejected based on their header.
      model_name: the model's name in the warm-up requests.
      tflite: also write `restore.tflite`, see `portable`.
      onnx: also write `restore.onnx`.
      prove: called with the version's folder and its graph; an exception prevents publication.

    Returns:
      The version's folder.

    Raises:
      UserError: the version exists, `export_dir` cannot be written, or `onnx` is set without the extra of that name.
      ValueError: stride, halo or tile is out of range, or `info` is not JSON-serializable.
    """
    plan = tiling.Tiling.of_network(stride, halo, tile, max_untiled_pixels)
    if onnx:
        portable.require_onnx()  # fail before the work begins
    # Traced once for both the tiled and the untiled path, which halves the time.
    forward = tf.function(network, input_signature=[tf.TensorSpec([None, None, None, 3], tf.float32)])
    return write_restore_function(
        lambda images: {"restored": tiling.restore_any_size(forward, images, plan)},
        export_dir=export_dir,
        info={**(info or {}), "tiling": dataclasses.asdict(plan)},
        version=version,
        max_pixels=max_pixels,
        model_name=model_name,
        variables=getattr(network, "variables", ()),
        prove=prove,
        further_files={
            name: functools.partial(write, network, stride)
            for name, write, wanted in (
                (portable.TFLITE_FILE, portable.write_tflite, tflite),
                (portable.ONNX_FILE, portable.write_onnx, onnx),
            )
            if wanted
        },
    )
