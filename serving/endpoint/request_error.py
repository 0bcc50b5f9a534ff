"""A request that cannot be answered, with the status that TF Serving gives it."""

from __future__ import annotations

import re

import grpc
import tensorflow as tf


class RequestError(Exception):
    """Becomes the call's status.

    Attributes:
      code: the gRPC status code.
      message: its details, worded as TF Serving words them where it has such an error.
    """

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


def invalid(message: str) -> RequestError:
    """The error of a request that is wrong in itself."""
    return RequestError(grpc.StatusCode.INVALID_ARGUMENT, message)


def not_found(message: str) -> RequestError:
    """The error of a request for a model or version that is not served."""
    return RequestError(grpc.StatusCode.NOT_FOUND, message)


# What TensorFlow in Python puts around the graph's own message, and TF Serving does not.
_PYTHON_TRACE = re.compile(r"^Graph execution error:.*<stack traces unavailable>\n| \[Op:\w+\]$", re.DOTALL)

# TensorFlow's error codes are gRPC's by design: the numbers agree.
_CODES = {code.value[0]: code for code in grpc.StatusCode}


def from_tensorflow(error: tf.errors.OpError) -> RequestError:
    """Keeps the code and message that the graph raised."""
    return RequestError(_CODES.get(error.error_code, grpc.StatusCode.UNKNOWN), _PYTHON_TRACE.sub("", error.message))
