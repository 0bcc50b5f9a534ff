"""Warm-up requests, stored in each version so that users do not wait for the slow first requests.

Before a version becomes available, TF Serving and our server replay `assets.extra/tf_serving_warmup_requests`, a
TFRecord of `PredictionLog`.
"""

from __future__ import annotations

import io
import os
import pathlib
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

_FILE = pathlib.PurePath("assets.extra", "tf_serving_warmup_requests")
_SIDE = 64


def _gradient() -> np.ndarray:
    """Makes a small image, uint8 `[64, 64, 3]`, so that no image file is needed."""
    across = np.linspace(0, 255, _SIDE).astype(np.uint8)
    return np.stack(np.broadcast_arrays(across, across[:, np.newaxis], np.uint8(128)), axis=-1)


def _requests(model_name: str) -> Iterator[predict_pb2.PredictRequest]:
    picture = _gradient()
    files = []
    for image_format in ("JPEG", "PNG"):
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, image_format)
        files.append(buffer.getvalue())
    inputs = {"serving_default": ("image_bytes", files), "restore": ("images", picture[np.newaxis])}
    for signature, (name, value) in inputs.items():
        request = predict_pb2.PredictRequest()
        request.model_spec.name = model_name
        request.model_spec.signature_name = signature
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        yield request


def write_warmup_requests(version_folder: str | os.PathLike, model_name: str) -> None:
    """Writes one request per signature; the one for `serving_default` has a JPEG and a PNG."""
    path = pathlib.Path(version_folder) / _FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(os.fspath(path)) as writer:
        for request in _requests(model_name):
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            writer.write(log.SerializeToString())


def read_warmup_requests(version_folder: str | os.PathLike) -> list[predict_pb2.PredictRequest]:
    """Reads a version's Predict requests; an empty list if it has none."""
    path = pathlib.Path(version_folder) / _FILE
    if not path.exists():
        return []
    records = tf.data.TFRecordDataset(os.fspath(path)).as_numpy_iterator()
    logs = map(prediction_log_pb2.PredictionLog.FromString, records)
    return [log.predict_log.request for log in logs if log.HasField("predict_log")]
