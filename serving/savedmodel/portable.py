"""Writes a network for runtimes other than TensorFlow: TensorFlow Lite and ONNX.

Both files compute what the `restore` signature does, with the same names: `images`, uint8 `[N, H, W, 3]`, any
H, W >= 1, to `restored`, same shape and dtype. They include the mirrored padding but not the tiling: neither format can
loop over windows whose sizes depend on the image. So images are processed in one piece, and memory grows with their
size; docs/reuse.md shows how to cut large ones.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Callable

import tensorflow as tf

from common.command_line import UserError
from serving.savedmodel import tiling

TFLITE_FILE, ONNX_FILE = "restore.tflite", "restore.onnx"  # named after the signature
_OPSET = 15  # ONNX operator set version: supported by onnxruntime 1.10 and newer
_AXES = ("batch", "height", "width")


class _Untiled(tf.Module):
    """The graph to convert, with the network's variables."""

    def __init__(self, network: Callable[[tf.Tensor], tf.Tensor], stride: int) -> None:
        super().__init__()
        self._network_variables = list(getattr(network, "variables", ()))

        def restore(images: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"restored": tiling.restore_untiled(network, images, stride)}

        self.restore = tf.function(
            restore, input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")]
        )


def require_onnx() -> None:
    """Raises a UserError if the ONNX converter is not installed."""
    try:
        import tf2onnx  # noqa: F401
    except ImportError as error:
        raise UserError(f"--onnx: {error}; pip install 'cleanplate[onnx]', or leave --onnx out") from None


@contextlib.contextmanager
def _without_statistics() -> Iterator[None]:
    """Suppresses the operator table that the converter's C++ code prints to stderr at any log level.

    No error is lost: the converter reports errors as exceptions.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def write_tflite(network: Callable[[tf.Tensor], tf.Tensor], stride: int, path: str | os.PathLike) -> None:
    """Writes `network` as a TensorFlow Lite file that uses only built-in operators, with one signature, `restore`.

    Args:
      network: maps float32 `[N, H, W, 3]` in 0..1, H and W multiples of `stride`, to float32 of the same shape.
      stride: pixels; the network's input sides must be multiples of this.
      path: the file to write.
    """
    module = _Untiled(network, stride)
    # Converted through a SavedModel: converting a function directly would lose the signature's name.
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures={"restore": module.restore})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["restore"])
        with _without_statistics():
            converted = converter.convert()
    with open(path, "wb") as file:
        file.write(converted)


def write_onnx(network: Callable[[tf.Tensor], tf.Tensor], stride: int, path: str | os.PathLike) -> None:
    """Writes `network` as an ONNX file that uses only standard operators, with dynamic axes.

    Args:
      network: maps float32 `[N, H, W, 3]` in 0..1, H and W multiples of `stride`, to float32 of the same shape.
      stride: pixels; the network's input sides must be multiples of this.
      path: the file to write.

    Raises:
      UserError: the extra `onnx` is not installed.
    """
    require_onnx()
    import onnx
    import tf2onnx

    module = _Untiled(network, stride)
    restore = module.restore.get_concrete_function()
    model, _ = tf2onnx.convert.from_function(module.restore, module.restore.input_signature, opset=_OPSET)
    # tf2onnx freezes variables but turns constants captured by Keras into graph inputs; make them initializers.
    captured = {inner.name: value for value, inner in restore.graph.captures if value.dtype != tf.resource}
    for constant in [value for value in model.graph.input if value.name in captured]:
        model.graph.input.remove(constant)
        model.graph.initializer.append(onnx.numpy_helper.from_array(captured[constant.name].numpy(), constant.name))
    for value in (*model.graph.input, *model.graph.output):
        for axis, dimension in zip(_AXES, value.type.tensor_type.shape.dim):
            dimension.dim_param = axis
    onnx.save(model, os.fspath(path))
