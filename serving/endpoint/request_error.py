"""Errors for invalid requests, with the status codes that TF Serving uses."""

from __future__ import annotations

import re

import grpc
import tensorflow as tf


class RequestError(Exception):
    """An error that becomes the call's gRPC status.

    Attributes:
      code: the gRPC status code.
      message: the status details, worded like TF Serving's if it has such an error.
    """

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


def invalid(message: str) -> RequestError:
    """Makes the error for an invalid request."""
    return RequestError(grpc.StatusCode.INVALID_ARGUMENT, message)


def not_found(message: str) -> RequestError:
    """Makes the error for a model or version that is not served."""
    return RequestError(grpc.StatusCode.NOT_FOUND, message)


# Text that TensorFlow in Python adds around the graph's own message, unlike TF Serving.
_PYTHON_TRACE = re.compile(r"^Graph execution error:.*<stack traces unavailable>\n| \[Op:\w+\]$", re.DOTALL)

# TensorFlow's error codes have the same numbers as gRPC's, by design.
_CODES = {code.value[0]: code for code in grpc.StatusCode}


def from_tensorflow(error: tf.errors.OpError) -> RequestError:
    """Converts an error raised by the graph, keeping its code and message."""
    return RequestError(_CODES.get(error.error_code, grpc.StatusCode.UNKNOWN), _PYTHON_TRACE.sub("", error.message))
