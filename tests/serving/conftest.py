"""One set of exported models and one server for all tests here: exporting takes longer than asking."""

import io
from pathlib import Path

import grpc
import numpy as np
import pytest
import skimage.data
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)
from tensorflow_serving.config import model_server_config_pb2

from serving.endpoint.endpoint import Endpoint
from serving.endpoint.model_store import ModelStore
from serving.savedmodel.writer import write_saved_model

STRIDE, HALO = 4, 7
PIXEL = np.zeros((1, 1, 1, 3), np.uint8)


class SmallNetwork(tf.Module):
    """Convolutions, a strided one among them, with weights that change a picture visibly and everywhere.

    An output pixel depends on 5x5 (2 pixels), then on 4x4 of those with stride 4 for its whole cell (up to 5 more).
    """

    def __init__(self, seed=0):
        super().__init__()
        rng = np.random.default_rng(seed)
        self.first = tf.Variable(rng.normal(0, 0.15, (5, 5, 3, 8)).astype(np.float32))
        self.down = tf.Variable(rng.normal(0, 0.1, (4, 4, 8, 16)).astype(np.float32))
        self.last = tf.Variable(rng.normal(0, 0.2, (1, 1, 16, 3)).astype(np.float32))

    def __call__(self, images):
        features = tf.nn.relu(tf.nn.conv2d(images, self.first, 1, "SAME"))
        features = tf.nn.relu(tf.nn.conv2d(features, self.down, STRIDE, "SAME"))
        features = tf.repeat(tf.repeat(features, STRIDE, axis=1), STRIDE, axis=2)
        return images + tf.nn.conv2d(features, self.last, 1, "SAME")


def export(network, export_dir, **options):
    """The version folder of `network`, exported with the small network's geometry unless told otherwise."""
    return write_saved_model(network, export_dir=export_dir, **{"stride": STRIDE, "halo": HALO, **options})


def load(version_folder):
    """The loaded object; its `.signatures` run as long as it lives."""
    return tf.saved_model.load(str(version_folder))


def encoded(pixels, image_format="PNG", mode=None, **options):
    """A file's bytes, by Pillow."""
    image = Image.fromarray(pixels)
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, image_format, **options)
    return buffer.getvalue()


def decoded(data, mode=None):
    """A file's pixels, by Pillow."""
    image = Image.open(io.BytesIO(data))
    return np.asarray(image.convert(mode) if mode else image)


def predict_request(model, signature, name, value, **spec):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    if "version" in spec:
        request.model_spec.version.value = spec["version"]
    if "label" in spec:
        request.model_spec.version_label = spec["label"]
    request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request


def model_config(name, base_path):
    return model_server_config_pb2.ModelConfig(name=name, base_path=str(base_path))


def status_request(name, version=None):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = name
    if version is not None:
        request.model_spec.version.value = version
    return request


def refused(call, *arguments, **options):
    """The status of a call that must fail."""
    with pytest.raises(grpc.RpcError) as error:
        call(*arguments, **options)
    return error.value.code(), error.value.details()


class Stubs:
    """Both services of a server, as any gRPC client sees them."""

    def __init__(self, address):
        self.channel = grpc.insecure_channel(address, [("grpc.max_receive_message_length", -1)])
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.model = model_service_pb2_grpc.ModelServiceStub(self.channel)


@pytest.fixture(scope="session")
def photo():
    """A real photograph, uint8 [512, 512, 3]."""
    return skimage.data.astronaut()


@pytest.fixture(scope="session")
def export_dir(tmp_path_factory) -> Path:
    """The small network, cut as it is by default: the tests' pictures go through it in one piece."""
    folder = tmp_path_factory.mktemp("models") / "small"
    export(SmallNetwork(), folder, info={"step": 1234})
    return folder


@pytest.fixture(scope="session")
def identity_dir(tmp_path_factory) -> Path:
    """A network that returns its input, with small tiles, and a limit of 1 million pixels."""
    folder = tmp_path_factory.mktemp("models") / "identity"
    export(tf.identity, folder, tile=64, max_untiled_pixels=64 * 64, max_pixels=1_000_000)
    return folder


@pytest.fixture(scope="session")
def small_model(export_dir):
    return load(export_dir / "1")


@pytest.fixture(scope="session")
def identity_model(identity_dir):
    return load(identity_dir / "1")


@pytest.fixture(scope="session")
def server(export_dir, identity_dir):
    """The address of a server with the models `cleanplate` (the small network) and `identity`."""
    configs = [model_config("cleanplate", export_dir), model_config("identity", identity_dir)]
    with ModelStore(configs, poll_seconds=0) as store, Endpoint(store) as endpoint:
        yield endpoint.address


@pytest.fixture(scope="session")
def stubs(server):
    return Stubs(server)
