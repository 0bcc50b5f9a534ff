"""TF Serving's list of models: several of them, versions, labels, and a file that changes while it is served."""

import signal
import subprocess
import sys
import time

import grpc
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.apis import model_management_pb2

from common import versions
from common.command_line import UserError
from serving.endpoint import model_config
from tests.serving.conftest import Stubs, export, predict_request, refused

pytestmark = pytest.mark.slow


def _inverted(images):
    return 1.0 - images


@pytest.fixture(scope="module")
def two_versions(tmp_path_factory):
    """A model whose version 1 returns its input, and whose version 2 the negative."""
    folder = tmp_path_factory.mktemp("models") / "two"
    export(tf.identity, folder)
    export(_inverted, folder)
    assert list(versions.list_versions(folder)) == [1, 2]
    return folder


def _text(folder, labels=(), name="first", other=None):
    written = "".join(f'version_labels {{ key: "{key}" value: {value} }} ' for key, value in labels)
    text = f"""config {{ name: "{name}" base_path: "{folder}" model_platform: "tensorflow"
        model_version_policy {{ specific {{ versions: 1 versions: 2 }} }} {written} }}"""
    if other:
        text += f' config {{ name: "second" base_path: "{other}" }}'
    return f"model_config_list {{ {text} }}"


def _answer(stubs, model, **spec):
    white = np.full((1, 4, 4, 3), 255, np.uint8)
    response = stubs.prediction.Predict(predict_request(model, "restore", "images", white, **spec))
    return response.model_spec.version.value, int(tf.make_ndarray(response.outputs["restored"]).max())


@pytest.fixture
def served(two_versions, identity_dir, tmp_path):
    """A server in a process of its own, its file, and stubs."""
    file = tmp_path / "models.config"
    file.write_text(_text(two_versions, {"stable": 1, "canary": 2}.items(), other=identity_dir))
    command = [sys.executable, "-m", "serving.server", f"--model_config_file={file}", "--port=0"]
    command += ["--model_config_file_poll_wait_seconds=0.2", "--monitoring_port=0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    yield file, line, Stubs(line.split(" at ")[1].split()[0]), process
    process.kill()
    process.wait()


def test_models_versions_and_labels_are_served_as_the_file_says(served, two_versions):
    file, line, stubs, process = served
    assert line.startswith("serving first version 1, 2, second version 1 at 127.0.0.1:")
    assert "metrics at http://127.0.0.1:" in line
    assert _answer(stubs, "first") == (2, 0)
    assert _answer(stubs, "first", label="stable") == (1, 255)
    assert _answer(stubs, "first", label="canary") == (2, 0)
    assert _answer(stubs, "second") == (1, 255)

    file.write_text("model_config_list { config {")  # half a file takes nothing away
    file.write_text(_text(two_versions, {"stable": 2}.items()))
    until = time.monotonic() + 60
    while time.monotonic() < until and _answer(stubs, "first", label="stable") == (1, 255):
        time.sleep(0.1)
    assert _answer(stubs, "first", label="stable") == (2, 0)
    code, _ = refused(_answer, stubs, "second")
    assert code == grpc.StatusCode.NOT_FOUND
    assert refused(_answer, stubs, "first", label="canary")[0] == grpc.StatusCode.INVALID_ARGUMENT

    request = model_management_pb2.ReloadConfigRequest()
    text_format.Parse(_text(two_versions, {"stable": 7}.items()), request.config)
    assert refused(stubs.model.HandleReloadConfigRequest, request) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "Request to assign label to version 7 of model first, which is not currently available for inference",
    )
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
    assert "Traceback" not in process.stderr.read()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no model"),
        ("model_config_list { config { name: 3 } }", "1:36.*text format|text format.*1:36"),
        ('model_config_list { config { name: "a" } }', "model 'a' at '': name and base_path are needed"),
        (
            'model_config_list { config { name: "a" base_path: "/x" } config { name: "a" base_path: "/y" } }',
            "a is configured twice",
        ),
        (
            'model_config_list { config { name: "a" base_path: "/x" model_platform: "onnx" } }',
            "model_platform 'onnx'; only 'tensorflow' is served",
        ),
    ],
)
def test_a_file_that_does_not_serve_is_named(text, message, tmp_path):
    (tmp_path / "models.config").write_text(text)
    with pytest.raises(UserError, match=f"models.config.*({message})"):
        model_config.read(tmp_path / "models.config")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match="--model_config_file=.*absent: No such file"):
        model_config.read(tmp_path / "absent")
