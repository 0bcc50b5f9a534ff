"""Versions come and go under a server that goes on answering."""

import shutil
import threading
import time
from concurrent import futures

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import get_model_status_pb2, model_management_pb2

from common import versions
from common.command_line import UserError
from serving.endpoint.endpoint import Endpoint
from serving.endpoint.model_store import ModelStore
from tests.serving.conftest import PIXEL, Stubs, model_config, predict_request, refused, status_request

pytestmark = pytest.mark.slow

Code = grpc.StatusCode
VersionStatus = get_model_status_pb2.ModelVersionStatus


def wait_until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def copy_version(source, base_path, version):
    """A version appears, whole and at once, as an export would write it."""
    with versions.new_version(base_path, version) as new:
        shutil.copytree(source, new.folder, dirs_exist_ok=True)


def test_a_new_version_is_picked_up_and_no_request_is_lost(identity_dir, export_dir, small_model, photo, tmp_path):
    picture = photo[np.newaxis, :20, :20]
    restored = small_model.signatures["restore"](images=tf.constant(picture))["restored"].numpy()
    copy_version(identity_dir / "1", tmp_path, 1)
    with ModelStore([model_config("m", tmp_path)], poll_seconds=0.05) as store, Endpoint(store) as endpoint:
        stubs, done, answers = Stubs(endpoint.address), threading.Event(), []

        def ask_on():
            while not done.is_set():
                response = stubs.prediction.Predict(predict_request("m", "restore", "images", picture))
                answers.append((response.model_spec.version.value, response.outputs["restored"].tensor_content))

        with futures.ThreadPoolExecutor(3) as executor:
            askers = [executor.submit(ask_on) for _ in range(3)]
            try:
                copy_version(export_dir / "1", tmp_path, 2)
                wait_until(lambda: store.served() == {"m": [2]})
                time.sleep(0.1)
            finally:
                done.set()
            for asker in askers:
                asker.result()  # raises if a request was lost
        assert set(answers) == {(1, picture.tobytes()), (2, restored.tobytes())}
        states = {s.version: s.state for s in stubs.model.GetModelStatus(status_request("m")).model_version_status}
        assert states == {1: VersionStatus.END, 2: VersionStatus.AVAILABLE}


def test_a_version_that_does_not_load_leaves_the_one_before(identity_dir, tmp_path):
    copy_version(identity_dir / "1", tmp_path, 1)
    with ModelStore([model_config("m", tmp_path)], poll_seconds=0.05) as store, Endpoint(store) as endpoint:
        for name in (".tmp-3", "2"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "saved_model.pb").write_bytes(b"not a graph")
        spec = status_request("m").model_spec
        wait_until(lambda: [s.state for s in store.statuses(spec)] == [VersionStatus.END, VersionStatus.AVAILABLE])
        assert store.statuses(spec)[0].status.error_message
        request = predict_request("m", "restore", "images", PIXEL)
        assert Stubs(endpoint.address).prediction.Predict(request).model_spec.version.value == 1


def test_version_policies_choose_what_is_served(identity_dir, tmp_path):
    for version in (1, 2, 3):
        copy_version(identity_dir / "1", tmp_path, version)
    config = model_config("m", tmp_path)
    with ModelStore([config], 0) as store:
        assert store.served() == {"m": [3]}
        config.model_version_policy.latest.num_versions = 2
        store.replace([config])
        assert store.served() == {"m": [2, 3]}
        config.model_version_policy.specific.versions[:] = [1]
        store.replace([config])
        assert store.served() == {"m": [1]}


def test_a_label_for_a_version_to_come_is_allowed_where_asked_for(identity_dir, tmp_path):
    copy_version(identity_dir / "1", tmp_path, 1)
    config = model_config("m", tmp_path)
    config.version_labels["canary"] = 2
    config.model_version_policy.all.SetInParent()
    with pytest.raises(UserError, match="version 2 of model m, which is not currently available"):
        ModelStore([config], 0)
    request = predict_request("m", "restore", "images", PIXEL, label="canary")
    with ModelStore([config], 0.05, any_label=True) as store, Endpoint(store) as endpoint:
        predict = Stubs(endpoint.address).prediction.Predict
        assert refused(predict, request) == (Code.NOT_FOUND, "Servable not found for request: Specific(m, 2)")
        copy_version(identity_dir / "1", tmp_path, 2)
        wait_until(lambda: store.served() == {"m": [1, 2]})
        assert predict(request).model_spec.version.value == 2


def test_a_base_path_without_a_model_is_named(tmp_path):
    with pytest.raises(UserError, match="has no version folder"):
        ModelStore([model_config("m", tmp_path)], 0)
    with pytest.raises(UserError, match="is not a folder"):
        ModelStore([model_config("m", tmp_path / "none")], 0)
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"not a graph")
    with pytest.raises(UserError, match="version 1 does not load"):
        ModelStore([model_config("m", tmp_path)], 0)


def test_a_reload_replaces_the_models(identity_dir, export_dir, tmp_path):
    with ModelStore([model_config("a", identity_dir)], 0) as store, Endpoint(store) as endpoint:
        stubs = Stubs(endpoint.address)
        request = model_management_pb2.ReloadConfigRequest()
        labelled = model_config("b", export_dir)
        labelled.version_labels["stable"] = 1
        request.config.model_config_list.config.append(labelled)
        assert stubs.model.HandleReloadConfigRequest(request).status.error_code == 0
        stubs.prediction.Predict(predict_request("b", "restore", "images", PIXEL, label="stable"))
        assert refused(stubs.prediction.Predict, predict_request("a", "restore", "images", PIXEL))[0] == Code.NOT_FOUND

        request.config.model_config_list.config.append(model_config("c", tmp_path))
        code, details = refused(stubs.model.HandleReloadConfigRequest, request)
        assert code == Code.INVALID_ARGUMENT and str(tmp_path) in details
        stubs.prediction.Predict(predict_request("b", "restore", "images", PIXEL))
        empty = model_management_pb2.ReloadConfigRequest()
        assert refused(stubs.model.HandleReloadConfigRequest, empty)[0] == Code.INVALID_ARGUMENT
