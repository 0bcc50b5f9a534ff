"""Restores images through a gRPC server (ours or TF Serving), with a deadline and gRPC's built-in retries.

from serving.client import Restorer

with Restorer("localhost:8500") as restorer:
    restored = restorer.restore(np.asarray(Image.open("photo.jpg")))
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from common.command_line import UserError
from serving.restoring.answer import Answer, PixelAnswer
from serving.restoring.refusal import Refused, reason

_MAX_MESSAGE_BYTES = (1 << 31) - 1  # the largest that gRPC takes; the server enforces its own limit
_RETRIES = {
    "methodConfig": [
        {
            "name": [{"service": "tensorflow.serving.PredictionService"}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.2s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                # Predictions change nothing on the server, so retrying is safe.
                "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
            },
        }
    ]
}


def _found(outputs: Mapping[str, tf.compat.v1.TensorProto]) -> np.ndarray | None:
    """Returns bool `[N]`, whether the mark was found in each image; None if the model does not report it."""
    return tf.make_ndarray(outputs["found"]) if "found" in outputs else None


class Restorer:
    """A connection to a server; thread-safe; a context manager.

    Attributes:
      server: `host:port`.
      model_name: the model that answers.
    """

    def __init__(
        self,
        server: str = "localhost:8500",
        model_name: str = "cleanplate",
        deadline_seconds: float = 60.0,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        """Prepares the connection; the first request opens it.

        Args:
          server: `host:port` of `python -m serving.server` or of TF Serving's gRPC port.
          model_name: the model's name on the server.
          deadline_seconds: maximum time per answer, including retries.
          credentials: TLS credentials from `tls.channel_credentials`; None for plain text.
        """
        self.server, self.model_name, self._deadline = server, model_name, deadline_seconds
        options = [
            ("grpc.service_config", json.dumps(_RETRIES)),
            # Requests larger than this buffer are never retried.
            ("grpc.per_rpc_retry_buffer_size", _MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
            ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
        ]
        self._channel = (
            grpc.secure_channel(server, credentials, options) if credentials else grpc.insecure_channel(server, options)
        )
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def restore_bytes(self, image_bytes: bytes) -> bytes:
        """Restores an image file.

        Args:
          image_bytes: a JPEG, PNG, BMP or GIF; its metadata and EXIF orientation are ignored.

        Returns:
          A PNG of the same size: RGBA if the input has alpha, else RGB.

        Raises:
          Refused: the server could not restore this image.
          UserError: no server, or the server does not have this model.
        """
        return self.ask(image_bytes).restored_bytes

    def ask(self, image_bytes: bytes) -> Answer:
        """Restores an image file and reports whether the model found its mark.

        Args:
          image_bytes: a JPEG, PNG, BMP or GIF; its metadata and EXIF orientation are ignored.

        Returns:
          The answer; its `found` is None if the model does not report it.

        Raises:
          Refused: the server could not restore this image.
          UserError: no server, or the server does not have this model.
        """
        outputs = self._predict("serving_default", "image_bytes", tf.make_tensor_proto([image_bytes]))
        found = _found(outputs)
        return Answer(outputs["restored_bytes"].string_val[0], None if found is None else bool(found[0]))

    def restore(self, pixels: np.ndarray) -> np.ndarray:
        """Restores pixels.

        Args:
          pixels: uint8 `[H, W, 3]` or `[N, H, W, 3]`, sRGB.

        Returns:
          uint8 of the same shape.

        Raises:
          ValueError: wrong dtype or shape.
          Refused: the server could not restore them.
          UserError: no server, or the server does not have this model.
        """
        return self.ask_pixels(pixels).restored

    def ask_pixels(self, pixels: np.ndarray) -> PixelAnswer:
        """Restores pixels and reports whether the model found its mark.

        Args:
          pixels: uint8 `[H, W, 3]` or `[N, H, W, 3]`, sRGB.

        Returns:
          The answer; its `found` is None if the model does not report it.

        Raises:
          ValueError: wrong dtype or shape.
          Refused: the server could not restore them.
          UserError: no server, or the server does not have this model.
        """
        if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4) or pixels.shape[-1] != 3:
            raise ValueError(f"pixels are uint8 [H, W, 3] or [N, H, W, 3], got {pixels.dtype} {list(pixels.shape)}")
        images = pixels if pixels.ndim == 4 else pixels[np.newaxis]
        outputs = self._predict("restore", "images", tf.make_tensor_proto(images))
        found = _found(outputs)
        return PixelAnswer(
            tf.make_ndarray(outputs["restored"]).reshape(pixels.shape),
            None if found is None else found.reshape(pixels.shape[:-3]),
        )

    def warm_up(self) -> None:
        """Opens the connection and checks that the server answers, by restoring one pixel.

        Raises:
          UserError: no server, the server does not have this model, or the model does not answer.
        """
        try:
            self.restore(np.zeros([1, 1, 3], np.uint8))
        except Refused as error:
            raise UserError(f"the server at {self.server} does not restore a single pixel: {error}") from error

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def __enter__(self) -> Restorer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _predict(self, signature: str, name: str, tensor: tf.compat.v1.TensorProto) -> dict:
        request = predict_pb2.PredictRequest()
        request.model_spec.name = self.model_name
        request.model_spec.signature_name = signature
        request.inputs[name].CopyFrom(tensor)
        try:
            return self._stub.Predict(request, timeout=self._deadline).outputs
        except grpc.RpcError as error:
            raise self._explained(error.code(), error.details() or "") from error

    def _explained(self, code: grpc.StatusCode, details: str) -> Exception:
        if code == grpc.StatusCode.UNAVAILABLE and "handshake" in details.lower():
            return UserError(
                f"the server at {self.server} shows no certificate that --tls_ca vouches for, or speaks no TLS "
                f"({details.rpartition('SSL routines:')[2]})"
            )
        if code == grpc.StatusCode.UNAVAILABLE and "Socket closed" in details:
            return UserError(
                f"the server at {self.server} hangs up: it wants TLS (--tls_ca), or a certificate that it knows "
                "(--tls_certificate, --tls_key)"
            )
        if code == grpc.StatusCode.UNAVAILABLE:
            return UserError(
                f"no server answers at {self.server}; start one with "
                "python -m serving.server --model_base_path=EXPORT_DIR"
            )
        if code == grpc.StatusCode.NOT_FOUND:
            return UserError(f"the server at {self.server} has no model {self.model_name!r}; give its --model_name")
        if code in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.FAILED_PRECONDITION):
            return UserError(
                f"the server at {self.server} does not restore pictures ({reason(details)}); "
                "name one that serves what python -m serving.export wrote"
            )
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            return Refused(f"no answer within {self._deadline:g} s; allow more with --deadline_seconds")
        return Refused(f"{reason(details)} ({code.name})")
