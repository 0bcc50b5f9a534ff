"""A trained model to evaluate: an export, or the best weights of a training run so far."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Callable

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from common.command_line import UserError
from common.versions import newest_version
from training.data.reflection import mirrored_indices
from training.run import exportable


@dataclasses.dataclass(frozen=True)
class EvaluatedModel:
    """A model and its description for the report.

    Attributes:
      restore: maps uint8 `[N, H, W, 3]` to uint8 `[N, H, W, 3]`, any H, W >= 1.
      path: the version folder, or the workdir.
      info: JSON-ready information from the export or the run about its weights; empty if there is none.
    """

    restore: Callable[[np.ndarray], np.ndarray]
    path: str
    info: dict[str, Any]


def load(path: str) -> EvaluatedModel:
    """Loads a model.

    Args:
      path: a SavedModel's version folder, a folder of version folders (the newest is used), or a training workdir (its
        weights with the best validation result are used).

    Raises:
      UserError: `path` is none of these, or cannot be used.
    """
    folder = Path(path)
    if not folder.exists():
        raise UserError(f"--model={path}: no such folder; name an export or a training workdir")
    if (folder / "saved_model.pb").exists():
        return _load_version(folder)
    if (folder / "config.json").exists():
        return _load_workdir(folder)
    newest = newest_version(folder)
    if newest:
        return _load_version(newest)
    raise UserError(
        f"--model={path}: neither an export (saved_model.pb, or folders named by version that hold it) nor a training "
        "workdir (config.json); train with training.train, export with serving.export"
    )


def _load_version(folder: Path) -> EvaluatedModel:
    try:
        loaded = tf.saved_model.load(str(folder))
    except (OSError, ValueError, DecodeError, tf.errors.OpError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--model: {folder} cannot be loaded ({reason}); export the model again") from None
    signature = loaded.signatures.get("restore")
    if signature is None or set(signature.structured_input_signature[1]) != {"images"}:
        raise UserError(f"--model: {folder} has no signature restore(images); export the model with serving.export")

    def restore(pictures: np.ndarray) -> np.ndarray:
        # Access it through `loaded`: a signature alone does not keep its variables alive.
        return loaded.signatures["restore"](images=tf.constant(pictures))["restored"].numpy()

    return EvaluatedModel(restore, str(folder), _read_info(folder / "export_info.json"))


def _read_info(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        info = None
    if not isinstance(info, dict):
        raise UserError(f"{path}: is not the JSON that serving.export wrote; remove it, or export the model again")
    return info


def _load_workdir(folder: Path) -> EvaluatedModel:
    trained = exportable.load(str(folder))

    # One graph for all sizes: one graph per size would fill the memory on a folder of whole images.
    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8)])
    def forward(images: tf.Tensor) -> tf.Tensor:
        size = tf.shape(images)[1:3]
        padded = images
        for axis in (1, 2):
            length = -(-size[axis - 1] // trained.stride) * trained.stride
            padded = tf.gather(padded, mirrored_indices(0, length, size[axis - 1]), axis=axis)
        restored = trained.network(tf.cast(padded, tf.float32) / 255.0, training=False)
        return tf.cast(tf.round(tf.clip_by_value(restored, 0.0, 1.0) * 255.0), tf.uint8)[:, : size[0], : size[1]]

    return EvaluatedModel(lambda pictures: forward(tf.constant(pictures)).numpy(), str(folder), trained.info)
