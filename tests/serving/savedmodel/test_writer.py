"""An exported version is whole, self-contained, and never replaced."""

import importlib.metadata
import json
import os
import subprocess
import sys
import types

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

import training.run
from common import versions
from common.command_line import UserError
from serving.export import export as export_workdir
from serving.savedmodel.warmup import read_warmup_requests
from serving.savedmodel.writer import write_saved_model
from tests.serving.conftest import HALO, STRIDE, SmallNetwork, decoded, encoded, export, load

pytestmark = pytest.mark.slow

_LOADS_WITH_TENSORFLOW_ALONE = """
import sys
import types
import numpy as np
import tensorflow as tf
loaded = tf.saved_model.load(sys.argv[1])
ours = {"serving", "training", "common", "configs", "preprocessing"} & {name.split(".")[0] for name in sys.modules}
assert not ours, ours
images = np.load(sys.argv[2])
np.save(sys.argv[3], loaded.signatures["restore"](images=tf.constant(images))["restored"].numpy())
with open(sys.argv[4], "rb") as file:
    loaded.signatures["serving_default"](image_bytes=tf.constant([file.read()]))
"""


def test_it_loads_in_a_process_that_has_only_tensorflow(export_dir, small_model, photo, tmp_path):
    images = photo[np.newaxis, :50, :70]
    np.save(tmp_path / "in.npy", images)
    (tmp_path / "in.png").write_bytes(encoded(images[0]))
    script = tmp_path / "load.py"
    script.write_text(_LOADS_WITH_TENSORFLOW_ALONE)
    arguments = [export_dir / "1", tmp_path / "in.npy", tmp_path / "out.npy", tmp_path / "in.png"]
    run = subprocess.run(
        [sys.executable, "-I", script, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    here = small_model.signatures["restore"](images=tf.constant(images))["restored"].numpy()
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), here)


def test_both_signatures_agree(small_model, photo):
    picture = photo[:90, :70]
    [answer] = small_model.signatures["serving_default"](image_bytes=tf.constant([encoded(picture)]))[
        "restored_bytes"
    ].numpy()
    restored = small_model.signatures["restore"](images=tf.constant(picture[np.newaxis]))["restored"].numpy()
    np.testing.assert_array_equal(decoded(answer), restored[0])


def test_it_computes_what_the_network_computes(small_model, photo):
    picture = photo[np.newaxis, :64, :96]
    expected = SmallNetwork()(picture.astype(np.float32) / 255).numpy()
    restored = small_model.signatures["restore"](images=tf.constant(picture))["restored"].numpy()
    assert np.abs(restored - np.clip(expected, 0, 1) * 255).max() <= 0.51


def test_a_keras_model_exports_without_keras_objects(tmp_path, photo):
    inputs = tf.keras.Input([None, None, 3])
    features = tf.keras.layers.BatchNormalization()(tf.keras.layers.Conv2D(4, 3, padding="same")(inputs))
    network = tf.keras.Model(inputs, inputs + tf.keras.layers.Conv2D(3, 3, padding="same")(features))
    path = export(network, tmp_path, stride=1, halo=2)
    picture = photo[np.newaxis, :40, :40]
    expected = np.clip(network(picture.astype(np.float32) / 255, training=False).numpy(), 0, 1) * 255
    restored = load(path).signatures["restore"](images=tf.constant(picture))["restored"].numpy()
    assert np.abs(restored - expected).max() <= 0.51
    assert not (path / "keras_metadata.pb").exists()


def test_versions_count_up_and_are_never_replaced(tmp_path):
    def write(content, version=None):
        with versions.new_version(tmp_path, version) as new:
            (new.folder / "saved_model.pb").write_text(content)
            assert new.path.name not in os.listdir(tmp_path), "a version appears when it is whole"
        return new.path

    assert write("first") == tmp_path / "1"
    assert write("second", version=7) == tmp_path / "7"
    with pytest.raises(UserError, match="7 exists and versions are never replaced"):
        write("third", version=7)
    assert (tmp_path / "7" / "saved_model.pb").read_text() == "second"
    with pytest.raises(UserError, match="numbered from 1"):
        write("fourth", version=0)
    assert write("fifth") == tmp_path / "8"
    assert sorted(os.listdir(tmp_path)) == ["1", "7", "8"]
    assert (tmp_path / "8").stat().st_mode & 0o777 == 0o755, "TF Serving may run as another user"


def test_two_exports_at_once_take_two_numbers(tmp_path):
    with versions.new_version(tmp_path) as one:
        with versions.new_version(tmp_path) as other:
            for new in (one, other):
                (new.folder / "saved_model.pb").write_text("graph")
    assert {one.path.name, other.path.name} == {"1", "2"}


def test_exporting_over_a_version_is_refused(export_dir):
    before = (export_dir / "1" / "saved_model.pb").read_bytes()
    with pytest.raises(UserError, match="never replaced"):
        export(tf.identity, export_dir, version=1)
    assert (export_dir / "1" / "saved_model.pb").read_bytes() == before
    assert os.listdir(export_dir) == ["1"]


def test_an_export_that_fails_leaves_nothing(tmp_path):
    def broken(images):
        raise RuntimeError("cannot be traced")

    with pytest.raises(RuntimeError, match="cannot be traced"):
        export(broken, tmp_path)
    assert os.listdir(tmp_path) == []
    with pytest.raises(ValueError, match="JSON"):
        export(tf.identity, tmp_path, info={"step": object()})
    assert os.listdir(tmp_path) == []


def test_the_command_exports_what_training_hands_over(tmp_path, monkeypatch):
    trained = types.SimpleNamespace(network=SmallNetwork(), stride=STRIDE, halo=HALO, info={"step": 7})
    fake = types.ModuleType("training.run.exportable")
    fake.load = {"runs/a": trained}.get
    monkeypatch.setitem(sys.modules, "training.run.exportable", fake)
    monkeypatch.setattr(training.run, "exportable", fake, raising=False)
    path = export_workdir("runs/a", tmp_path / "out", version=3, tile=40, max_pixels=99)
    assert path == tmp_path / "out" / "3"
    info = json.loads((path / "export_info.json").read_text())
    assert (info["step"], info["max_pixels"], info["tiling"]["tile"]) == (7, 99, 40)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        export(tf.identity, tmp_path / "file" / "export")


def test_export_info_says_where_it_comes_from(export_dir):
    info = json.loads((export_dir / "1" / "export_info.json").read_text())
    assert info["step"] == 1234
    assert info["packages"]["tensorflow"] == tf.__version__
    for package in ("cleanplate", "tensorflow-addons", "numpy"):
        assert info["packages"][package] == importlib.metadata.version(package)
    assert info["tiling"]["stride"] == 4 and info["tiling"]["halo"] == 8


def test_the_warm_up_requests_are_those_tf_serving_reads_and_they_run(export_dir, small_model):
    file = export_dir / "1" / "assets.extra" / "tf_serving_warmup_requests"
    logs = [
        prediction_log_pb2.PredictionLog.FromString(record)
        for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator()
    ]
    assert [log.predict_log.request.model_spec.signature_name for log in logs] == ["serving_default", "restore"]
    for request in read_warmup_requests(export_dir / "1"):
        inputs = {name: tf.constant(tf.make_ndarray(proto)) for name, proto in request.inputs.items()}
        small_model.signatures[request.model_spec.signature_name](**inputs)


def test_a_model_trained_in_bfloat16_needs_nothing_of_it_to_load(tmp_path, photo):
    option = "auto_mixed_precision_onednn_bfloat16"
    tf.config.optimizer.set_experimental_options({option: True})
    try:
        path = write_saved_model(SmallNetwork(), stride=4, halo=7, export_dir=tmp_path)
    finally:
        tf.config.optimizer.set_experimental_options({option: False})
    assert b"bfloat16" not in (path / "saved_model.pb").read_bytes().lower()
    picture = photo[np.newaxis, :64, :96]
    expected = np.clip(SmallNetwork()(picture.astype(np.float32) / 255).numpy(), 0, 1) * 255
    restored = load(path).signatures["restore"](images=tf.constant(picture))["restored"].numpy()
    assert np.abs(restored - expected).max() <= 0.51
