"""Writes a restorer, such as a trained network, as a SavedModel that needs nothing but TensorFlow.

EXPORT_DIR/
  1/                                  the version; the next number by default, never replaced
    saved_model.pb, variables/        the graph with both signatures, and the weights
    assets.extra/tf_serving_warmup_requests
    export_info.json                  where the weights come from, how the graph cuts pictures, package versions
    restore.tflite, restore.onnx      on request: the same network for other runtimes, see portable.py

serving_default    image_bytes string [N] (JPEG, PNG, BMP, GIF; sizes may differ) -> restored_bytes string [N] (PNG)
restore            images uint8 [N, H, W, 3], any H, W >= 1 -> restored uint8 [N, H, W, 3]

Both have the further outputs of what restores: with `serving.key` these are `found`, `score`, `opacity` and, of
`restore`, `transform`.
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

# uint8 [N, H, W, 3] to {"restored": the like, …}, in graph ops.
RestorePictures = Callable[[tf.Tensor], dict[str, tf.Tensor]]
# What is called with a written version's folder, and with the graph in it as this process can call it, before the
# version appears; an exception keeps it from appearing.
Proof = Callable[[pathlib.Path, RestorePictures], None]


class _Signatures(tf.Module):
    """The graph that is saved.

    It holds the restorer's variables and not the restorer: Keras would add its own functions and metadata for
    every layer, which no server reads and which tie the file to a version of Keras.
    """

    def __init__(
        self,
        restore_pictures: tf.types.experimental.ConcreteFunction,
        variables: Sequence[tf.Variable],
        max_pixels: int,
    ) -> None:
        super().__init__()
        setattr(self, NETWORK_VARIABLES, list(variables))  # tracked by tf.Module

        # A figure for each picture, such as whether a mark was found in it.
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
                parallel_iterations=1,  # one picture's pixels at a time, however many a request has
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
    """The versions of what an export is made with; a package that is not installed is left out."""
    found = {"tensorflow": tf.__version__}  # by itself: it is installed under several names
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
    """Writes anything that restores pictures of any size as the next version under `export_dir`, in one step.

    Args:
      restore_pictures: graph ops from uint8 `[N, H, W, 3]`, any H, W >= 1, to a dictionary with `restored`, the like,
        and further outputs for `restore`.
      export_dir: the model's folder, which holds the version folders; made if it is missing.
      info: anything JSON can say about it; written down.
      version: the version's number; by default one more than the largest.
      max_pixels: pictures above this size are refused by their header.
      model_name: what the warm-up requests call the model.
      variables: that `restore_pictures` reads.
      further_files: names in the version's folder, and what writes a file of that path.
      prove: see `Proof`.

    Returns:
      The version's folder.

    Raises:
      UserError: the version exists, or `export_dir` cannot be written.
      ValueError: `info` is not JSON.
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
        # One graph for both signatures: traced into each, it would take twice as long. And what cannot be traced fails
        # here rather than in serving_default's tf.map_fn, which would leave TensorFlow's variable scope in a state that
        # no tf.distribute.Strategy can be entered from.
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
    """Writes `network` as the next version under `export_dir`, in one step.

    Args:
      network: maps float32 `[N, H, W, 3]` in 0..1, H and W multiples of `stride`, to float32 of the same shape.
        A `tf.keras.Model`, a `tf.Module`, or a function; its weights are found in its `variables`.
      stride: pixels; the input's sides must be multiples of this.
      halo: pixels on each side that can influence an output pixel, the receptive field.
      export_dir: the model's folder, which holds the version folders; made if it is missing.
      info: anything JSON can say about the weights (config, step, validation figures); written down.
      version: the version's number; by default one more than the largest.
      tile: pixels; side of a tile's kept part. See `tiling.Tiling.of_network` for this default and the next.
      max_untiled_pixels: batches above this size are cut into tiles.
      max_pixels: pictures above this size are refused by their header.
      model_name: what the warm-up requests call the model.
      tflite: also write `restore.tflite`, see `portable`.
      onnx: also write `restore.onnx`.
      prove: see `Proof`.

    Returns:
      The version's folder.

    Raises:
      UserError: the version exists, `export_dir` cannot be written, or `onnx` without the extra of that name.
      ValueError: stride, halo or tile out of range, or `info` is not JSON.
    """
    plan = tiling.Tiling.of_network(stride, halo, tile, max_untiled_pixels)
    if onnx:
        portable.require_onnx()  # before the work begins
    # One function for whole pictures and for tiles, for the same reason as there.
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
