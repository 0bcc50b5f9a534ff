"""The server answers as TF Serving does: results, status codes, messages, descriptions."""

import threading
import time
from concurrent import futures
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
)

from common.command_line import UserError
from serving.endpoint.endpoint import Endpoint, Limits
from serving.endpoint.model_store import ModelStore
from serving.endpoint.servable import Servable
from tests.serving.conftest import (
    PIXEL,
    Stubs,
    decoded,
    encoded,
    model_config,
    predict_request,
    refused,
    status_request,
)

pytestmark = pytest.mark.slow

Code = grpc.StatusCode
VersionStatus = get_model_status_pb2.ModelVersionStatus


@pytest.fixture
def gate(monkeypatch):
    """Once it is shut, predictions of this process begin (a semaphore counts them) and wait until it opens."""
    gate = SimpleNamespace(opened=threading.Event(), begun=threading.Semaphore(0), count=0)
    gate.opened.set()
    predict = Servable.predict

    def gated(*arguments):
        gate.count += 1
        gate.begun.release()
        assert gate.opened.wait(60)
        return predict(*arguments)

    def shut():
        gate.opened.clear()
        monkeypatch.setattr(Servable, "predict", gated)

    gate.shut = shut
    yield gate
    gate.opened.set()


def queued(stubs, request):
    """A request that found a place in the queue; one that was refused because it is still full is asked again."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        call = stubs.prediction.Predict.future(request)
        try:
            call.result(timeout=0.5)
        except grpc.FutureTimeoutError:
            return call
        except grpc.RpcError as error:
            assert error.code() == Code.RESOURCE_EXHAUSTED
    raise AssertionError("the queue stays full")


def test_predict_runs_both_signatures_and_names_what_answered(stubs, small_model, photo):
    picture = photo[:60, :80]
    expected = small_model.signatures["restore"](images=tf.constant(picture[np.newaxis]))["restored"].numpy()
    response = stubs.prediction.Predict(predict_request("cleanplate", "restore", "images", picture[np.newaxis]))
    np.testing.assert_array_equal(tf.make_ndarray(response.outputs["restored"]), expected)
    assert (response.model_spec.name, response.model_spec.version.value) == ("cleanplate", 1)
    assert response.model_spec.signature_name == "restore"

    response = stubs.prediction.Predict(predict_request("cleanplate", "", "image_bytes", [encoded(picture)] * 2))
    assert response.model_spec.signature_name == "serving_default"
    for answer in response.outputs["restored_bytes"].string_val:
        np.testing.assert_array_equal(decoded(answer), expected[0])


@pytest.mark.parametrize(
    ("model", "spec", "code", "message"),
    [
        ("other", {}, Code.NOT_FOUND, "Servable not found for request: Latest(other)"),
        ("cleanplate", {"version": 9}, Code.NOT_FOUND, "Servable not found for request: Specific(cleanplate, 9)"),
        ("cleanplate", {"label": "x"}, Code.INVALID_ARGUMENT, "Unrecognized servable version label: x"),
        ("", {}, Code.INVALID_ARGUMENT, "ModelSpec has no name specified."),
    ],
)
def test_a_model_that_is_not_served(stubs, model, spec, code, message):
    request = predict_request(model, "restore", "images", PIXEL, **spec)
    assert refused(stubs.prediction.Predict, request) == (code, message)


def test_a_request_without_a_model(stubs):
    assert refused(stubs.prediction.Predict, predict_pb2.PredictRequest()) == (
        Code.INVALID_ARGUMENT,
        "Missing ModelSpec",
    )


def test_a_signature_that_does_not_exist(stubs):
    request = predict_request("cleanplate", "sharpen", "images", PIXEL)
    assert refused(stubs.prediction.Predict, request) == (
        Code.FAILED_PRECONDITION,
        'Serving signature key "sharpen" not found.',
    )


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("pictures", PIXEL, "Sent extra: {pictures}. Missing but required: {images}."),
        ("images", PIXEL.astype(np.float32), "to be uint8 but float32 is provided"),
        ("images", [b"bytes"], "to be uint8 but string is provided"),
        ("images", PIXEL[0], "must have shape"),
        ("images", np.zeros((1, 2, 2, 4), np.uint8), "must have shape"),
        ("images", np.zeros((1, 0, 2, 3), np.uint8), "at least 1"),
    ],
)
def test_an_input_that_does_not_fit(stubs, name, value, message):
    code, details = refused(stubs.prediction.Predict, predict_request("cleanplate", "restore", name, value))
    assert code == Code.INVALID_ARGUMENT
    assert message in details


def test_a_tensor_that_lies_about_its_size_costs_nothing(stubs):
    request = predict_request("cleanplate", "restore", "images", PIXEL)
    tensor = request.inputs["images"]
    for size in (100_000, -1):
        tensor.tensor_shape.dim[1].size = tensor.tensor_shape.dim[2].size = size
        assert refused(stubs.prediction.Predict, request)[0] == Code.INVALID_ARGUMENT
    tensor.tensor_shape.dim[1].size, tensor.tensor_shape.dim[2].size = 5, 5
    tensor.tensor_content = b"\0" * 7
    assert refused(stubs.prediction.Predict, request)[0] == Code.INVALID_ARGUMENT
    tensor.dtype = types_pb2.DT_INVALID
    assert refused(stubs.prediction.Predict, request)[0] == Code.INVALID_ARGUMENT


def test_outputs_are_filtered_by_name(stubs):
    request = predict_request("cleanplate", "restore", "images", PIXEL)
    request.output_filter.append("restored")
    assert list(stubs.prediction.Predict(request).outputs) == ["restored"]
    request.output_filter.append("restored")
    assert refused(stubs.prediction.Predict, request)[1] == "duplicate output tensor alias: restored"
    request.output_filter[:] = ["alpha"]
    code, details = refused(stubs.prediction.Predict, request)
    assert code == Code.INVALID_ARGUMENT
    assert "output tensor alias not found in signature: alpha" in details


def test_bad_bytes_are_an_invalid_argument_and_the_next_answer_is_right(stubs, photo):
    good = encoded(photo[:40, :40])
    for bad in (b"", b"text", good[: len(good) // 2], encoded(photo, "JPEG")[:2000]):
        request = predict_request("identity", "serving_default", "image_bytes", [good, bad])
        code, details = refused(stubs.prediction.Predict, request)
        assert code == Code.INVALID_ARGUMENT and "Graph execution error" not in details
        request = predict_request("identity", "serving_default", "image_bytes", [good])
        [answer] = stubs.prediction.Predict(request).outputs["restored_bytes"].string_val
        np.testing.assert_array_equal(decoded(answer), photo[:40, :40])


def test_metadata_describes_the_signatures(stubs):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "cleanplate"
    response = stubs.prediction.GetModelMetadata(request)
    assert response.model_spec.version.value == 1
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    default = signatures.signature_def["serving_default"]
    assert default.inputs["image_bytes"].dtype == types_pb2.DT_STRING
    assert default.outputs["restored_bytes"].dtype == types_pb2.DT_STRING
    images = signatures.signature_def["restore"].inputs["images"]
    assert [dimension.size for dimension in images.tensor_shape.dim] == [-1, -1, -1, 3]

    request.metadata_field[:] = ["weights"]
    assert refused(stubs.prediction.GetModelMetadata, request)[0] == Code.INVALID_ARGUMENT
    del request.metadata_field[:]
    assert "at least one metadata_field" in refused(stubs.prediction.GetModelMetadata, request)[1]


def test_status_lists_the_versions(stubs):
    [status] = stubs.model.GetModelStatus(status_request("cleanplate")).model_version_status
    assert (status.version, status.state) == (1, VersionStatus.AVAILABLE)
    assert refused(stubs.model.GetModelStatus, status_request("other")) == (
        Code.NOT_FOUND,
        "Could not find any versions of model other",
    )
    assert refused(stubs.model.GetModelStatus, status_request("cleanplate", 9)) == (
        Code.NOT_FOUND,
        "Could not find version 9 of model cleanplate",
    )


def test_methods_we_do_not_have_are_unimplemented(stubs):
    assert refused(stubs.prediction.Classify, classification_pb2.ClassificationRequest())[0] == Code.UNIMPLEMENTED


def test_beyond_the_queue_a_request_is_refused_at_once_and_a_late_one_is_not_computed(identity_dir, gate):
    limits = Limits(running=1, waiting=1)
    with ModelStore([model_config("identity", identity_dir)], 0) as store, Endpoint(store, limits=limits) as endpoint:
        stubs = Stubs(endpoint.address)
        request = predict_request("identity", "restore", "images", PIXEL)
        gate.shut()
        running = stubs.prediction.Predict.future(request)
        assert gate.begun.acquire(timeout=30)
        code, _ = refused(stubs.prediction.Predict, request, timeout=0.1)  # waits, and its time runs out
        assert code == Code.DEADLINE_EXCEEDED
        waiting = queued(stubs, request)
        assert refused(stubs.prediction.Predict, request)[0] == Code.RESOURCE_EXHAUSTED
        assert stubs.model.GetModelStatus(status_request("identity"))  # finds a thread all the same
        assert not running.done() and not waiting.done()
        gate.opened.set()
        running.result(timeout=30), waiting.result(timeout=30)
        stubs.prediction.Predict(request)
    assert gate.count == 3, "neither the late request nor the refused ones were computed"


def test_a_message_above_the_limit_is_refused(identity_dir):
    limits = Limits(message_bytes=1 << 20)
    with ModelStore([model_config("identity", identity_dir)], 0) as store, Endpoint(store, limits=limits) as endpoint:
        stubs = Stubs(endpoint.address)
        large = np.zeros((1, 1000, 1000, 3), np.uint8)
        code, _ = refused(stubs.prediction.Predict, predict_request("identity", "restore", "images", large))
        assert code == Code.RESOURCE_EXHAUSTED
        stubs.prediction.Predict(predict_request("identity", "restore", "images", PIXEL))


def test_requests_under_way_are_answered_when_the_server_ends(identity_dir, gate):
    with ModelStore([model_config("identity", identity_dir)], 0) as store:
        with Endpoint(store) as endpoint:
            gate.shut()
            answer = Stubs(endpoint.address).prediction.Predict.future(
                predict_request("identity", "restore", "images", PIXEL)
            )
            assert gate.begun.acquire(timeout=30)
            threading.Timer(0.5, gate.opened.set).start()  # by when the server is draining
        assert answer.result(timeout=30).outputs["restored"]


def test_a_port_that_is_taken_is_named(server, identity_dir):
    port = server.split(":")[1]
    with ModelStore([model_config("identity", identity_dir)], 0) as store:
        with pytest.raises(UserError, match=f"cannot listen on 127.0.0.1:{port}: another process has the port"):
            Endpoint(store, port=int(port))


def test_many_clients_get_their_own_answers(server):
    def ask(level):
        pixels = np.full((1, 33, 47, 3), level, np.uint8)
        response = Stubs(server).prediction.Predict(predict_request("identity", "restore", "images", pixels))
        return bool((tf.make_ndarray(response.outputs["restored"]) == level).all())

    with futures.ThreadPoolExecutor(16) as executor:
        assert all(executor.map(ask, range(64)))
