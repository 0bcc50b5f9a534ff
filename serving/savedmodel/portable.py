"""Writes a network for runtimes other than TensorFlow: TensorFlow Lite and ONNX.

Both files hold what the `restore` signature computes, under its names: `images` uint8 `[N, H, W, 3]`, any H, W >= 1, to
`restored`, the like. The mirrored padding is in them and tiling is not: loops over windows whose sizes depend on the
picture are beyond both formats. So a picture goes through in one piece, and memory grows with it; docs/reuse.md shows
how to cut large ones.
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

TFLITE_FILE, ONNX_FILE = "restore.tflite", "restore.onnx"  # after the signature that they hold
_OPSET = 15  # of ONNX: read by every onnxruntime since 1.10
_AXES = ("batch", "height", "width")


class _Untiled(tf.Module):
    """The graph that is converted, with the network's variables."""

    def __init__(self, network: Callable[[tf.Tensor], tf.Tensor], stride: int) -> None:
        super().__init__()
        self._network_variables = list(getattr(network, "variables", ()))

        def restore(images: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"restored": tiling.restore_untiled(network, images, stride)}

        self.restore = tf.function(
            restore, input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")]
        )


def require_onnx() -> None:
    """Raises a UserError where the converter to ONNX is not installed."""
    try:
        import tf2onnx  # noqa: F401
    except ImportError as error:
        raise UserError(f"--onnx: {error}; pip install 'cleanplate[onnx]', or leave --onnx out") from None


@contextlib.contextmanager
def _without_statistics() -> Iterator[None]:
    """Drops the table of operators that the converter writes to stderr from C++, whatever the log level.

    Nothing is lost: its errors come as exceptions.
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
    """Writes `network` as a TensorFlow Lite file of built-in operators, with one signature, `restore`.

    Args:
      network: see `saved_model.write_saved_model`.
      stride: pixels; its input's sides must be multiples of this.
      path: of the file.
    """
    module = _Untiled(network, stride)
    # By way of a SavedModel: a function converted directly loses the signature's name.
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures={"restore": module.restore})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["restore"])
        with _without_statistics():
            converted = converter.convert()
    with open(path, "wb") as file:
        file.write(converted)


def write_onnx(network: Callable[[tf.Tensor], tf.Tensor], stride: int, path: str | os.PathLike) -> None:
    """Writes `network` as an ONNX file of standard operators, with dynamic axes.

    Args:
      network, stride, path: see `write_tflite`.

    Raises:
      UserError: the extra `onnx` is not installed.
    """
    require_onnx()
    import onnx
    import tf2onnx

    module = _Untiled(network, stride)
    restore = module.restore.get_concrete_function()
    model, _ = tf2onnx.convert.from_function(module.restore, module.restore.input_signature, opset=_OPSET)
    # tf2onnx freezes variables, but makes inputs of the constants that Keras captures.
    captured = {inner.name: value for value, inner in restore.graph.captures if value.dtype != tf.resource}
    for constant in [value for value in model.graph.input if value.name in captured]:
        model.graph.input.remove(constant)
        model.graph.initializer.append(onnx.numpy_helper.from_array(captured[constant.name].numpy(), constant.name))
    for value in (*model.graph.input, *model.graph.output):
        for axis, dimension in zip(_AXES, value.type.tensor_type.shape.dim):
            dimension.dim_param = axis
    onnx.save(model, os.fspath(path))
