"""Asks a server to restore pictures: ours or TF Serving, over gRPC, with a deadline and gRPC's own retries.

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

_MAX_MESSAGE_BYTES = (1 << 31) - 1  # what a server takes is the server's to say
_RETRIES = {
    "methodConfig": [
        {
            "name": [{"service": "tensorflow.serving.PredictionService"}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.2s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                # A prediction changes nothing on the server, so that asking twice does no harm.
                "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
            },
        }
    ]
}


def _found(outputs: Mapping[str, tf.compat.v1.TensorProto]) -> np.ndarray | None:
    """Bool `[N]`, whether the mark was found in each picture; None from a model that does not say."""
    return tf.make_ndarray(outputs["found"]) if "found" in outputs else None


class Restorer:
    """A connection to a server; may be used by several threads, and as a context manager.

    Attributes:
      server: `host:port`.
      model_name: the model that is asked.
    """

    def __init__(
        self,
        server: str = "localhost:8500",
        model_name: str = "cleanplate",
        deadline_seconds: float = 60.0,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        """Prepares the connection; it is made by the first request.

        Args:
          server: `host:port` of `python -m serving.server` or of TF Serving's gRPC port.
          model_name: what the server calls the model.
          deadline_seconds: how long one answer may take, retries included.
          credentials: see `tls.channel_credentials`; None for plain text.
        """
        self.server, self.model_name, self._deadline = server, model_name, deadline_seconds
        options = [
            ("grpc.service_config", json.dumps(_RETRIES)),
            # A request larger than this buffer would be sent once and never retried.
            ("grpc.per_rpc_retry_buffer_size", _MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
            ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
        ]
        self._channel = (
            grpc.secure_channel(server, credentials, options) if credentials else grpc.insecure_channel(server, options)
        )
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def restore_bytes(self, image_bytes: bytes) -> bytes:
        """Restores a picture file.

        Args:
          image_bytes: a JPEG, PNG, BMP or GIF; its metadata and EXIF orientation are not looked at.

        Returns:
          A PNG of the same size, RGB, or RGBA where the input has alpha.

        Raises:
          Refused: the server could not restore this picture.
          UserError: no server, or not this model on it.
        """
        return self.ask(image_bytes).restored_bytes

    def ask(self, image_bytes: bytes) -> Answer:
        """Restores a picture file, and says whether the model found its mark.

        Args:
          image_bytes: a JPEG, PNG, BMP or GIF; its metadata and EXIF orientation are not looked at.

        Returns:
          The answer; its `found` is None where the model does not say.

        Raises:
          Refused: the server could not restore this picture.
          UserError: no server, or not this model on it.
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
          ValueError: another dtype or shape.
          Refused: the server could not restore them.
          UserError: no server, or not this model on it.
        """
        return self.ask_pixels(pixels).restored

    def ask_pixels(self, pixels: np.ndarray) -> PixelAnswer:
        """Restores pixels, and says whether the model found its mark.

        Args:
          pixels: uint8 `[H, W, 3]` or `[N, H, W, 3]`, sRGB.

        Returns:
          The answer; its `found` is None where the model does not say.

        Raises:
          ValueError: another dtype or shape.
          Refused: the server could not restore them.
          UserError: no server, or not this model on it.
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
        """Restores one pixel: finds out whether the server answers and makes the connection.

        Raises:
          UserError: no server, not this model on it, or the model does not answer.
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
