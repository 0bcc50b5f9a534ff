"""One loaded version of a model: checks a Predict request against a signature, runs it, and packs the outputs.

The checks have the same order, codes and wording as TF Serving's (`predict_util.cc`), so a client cannot tell which of
the two servers rejected its request.
"""

from __future__ import annotations

import math
import os
import pathlib
from collections.abc import Mapping, Sequence

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from serving.endpoint.request_error import RequestError, from_tensorflow, invalid
from serving.savedmodel import warmup

DEFAULT_SIGNATURE = "serving_default"
# Bytes. A proto can declare a huge tensor with a single value for all its elements. All our inputs fit in a message,
# which protobuf limits to 2 GiB.
_MAX_TENSOR_BYTES = 1 << 31


def _signature_defs(folder: pathlib.Path) -> dict[str, meta_graph_pb2.SignatureDef]:
    saved = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    serving = next(graph for graph in saved.meta_graphs if "serve" in graph.meta_info_def.tags)
    return dict(serving.signature_def)


def _parse(alias: str, proto: tensor_pb2.TensorProto, spec: tf.TensorSpec) -> tf.Tensor:
    """Parses one input; raises RequestError if it does not match the signature."""
    try:
        dtype = tf.as_dtype(proto.dtype)
    except TypeError as error:
        raise invalid(f"tensor parsing error: {alias}") from error
    if dtype != spec.dtype:
        raise invalid(f"Expects {alias} to be {spec.dtype.name} but {dtype.name} is provided")
    shape = [dimension.size for dimension in proto.tensor_shape.dim]
    if min(shape, default=0) < 0 or math.prod(shape) * max(dtype.size, 1) > _MAX_TENSOR_BYTES:
        raise invalid(f"tensor parsing error: {alias} declares shape {shape}")
    if proto.tensor_shape.unknown_rank or not spec.shape.is_compatible_with(shape):
        raise invalid(f"{alias} must have shape {spec.shape}, got {shape} (None stands for any size)")
    if dtype == tf.string and len(proto.string_val) != math.prod(shape):
        raise invalid(f"tensor parsing error: {alias} has {len(proto.string_val)} strings for shape {shape}")
    try:
        return tf.constant(tf.make_ndarray(proto), dtype)
    except (TypeError, ValueError) as error:
        raise invalid(f"tensor parsing error: {alias}: {error}") from error


def _joined(names: Sequence[str] | set[str]) -> str:
    return ",".join(sorted(names))


class Servable:
    """A loaded version; `predict` is thread-safe.

    Attributes:
      version: the version number.
      signature_defs: the SavedModel's signature definitions by name.
    """

    def __init__(self, version: int, folder: str | os.PathLike) -> None:
        """Loads the SavedModel in `folder` and replays its warm-up requests.

        Raises:
          OSError, ValueError, tf.errors.OpError, RequestError: the SavedModel cannot be read, or a warm-up request
            fails.
        """
        self.version = version
        self.signature_defs = _signature_defs(pathlib.Path(folder))
        # The loaded object owns the variables; the signatures cannot run without it.
        self._loaded = tf.saved_model.load(os.fspath(folder))
        self._signatures = dict(self._loaded.signatures)
        for request in warmup.read_warmup_requests(folder):
            self.predict(request.model_spec.signature_name, request.inputs)

    def predict(
        self,
        signature_name: str,
        inputs: Mapping[str, tensor_pb2.TensorProto],
        output_filter: Sequence[str] = (),
    ) -> dict[str, tensor_pb2.TensorProto]:
        """Runs a signature.

        Args:
          signature_name: "" for `serving_default`.
          inputs: all of the signature's inputs by name, and no others.
          output_filter: the outputs to return; empty for all.

        Returns:
          The outputs by name.

        Raises:
          RequestError: the request does not match the signature, or the graph rejected its content.
        """
        signature_name = signature_name or DEFAULT_SIGNATURE
        signature = self._signatures.get(signature_name)
        if signature is None:
            message = f'Serving signature key "{signature_name}" not found.'
            raise RequestError(grpc.StatusCode.FAILED_PRECONDITION, message)
        specs = signature.structured_input_signature[1]
        sent, expected = set(inputs), set(specs)
        if sent != expected:
            raise invalid(
                f"input size does not match signature: {len(sent)}!={len(expected)} "
                f"len({{{_joined(sent)}}}) != len({{{_joined(expected)}}}). "
                f"Sent extra: {{{_joined(sent - expected)}}}. "
                f"Missing but required: {{{_joined(expected - sent)}}}."
            )
        outputs = self._wanted(signature.structured_outputs, output_filter)
        tensors = {alias: _parse(alias, inputs[alias], spec) for alias, spec in specs.items()}
        try:
            results = signature(**tensors)
        except tf.errors.OpError as error:
            raise from_tensorflow(error) from error
        return {alias: _pack(results[alias]) for alias in outputs}

    @staticmethod
    def _wanted(outputs: Mapping[str, tf.TensorSpec], output_filter: Sequence[str]) -> list[str]:
        seen: list[str] = []
        for alias in output_filter:
            if alias not in outputs:
                raise invalid(
                    f"output tensor alias not found in signature: {alias} "
                    f"Outputs expected to be in the set {{{_joined(set(outputs))}}}."
                )
            if alias in seen:
                raise invalid(f"duplicate output tensor alias: {alias}")
            seen.append(alias)
        return seen or list(outputs)


def _pack(result: tf.Tensor) -> tensor_pb2.TensorProto:
    array: np.ndarray = result.numpy()
    return tf.make_tensor_proto(array, dtype=result.dtype, shape=array.shape)
