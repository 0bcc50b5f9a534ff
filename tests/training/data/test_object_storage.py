"""Training reads a dataset from object storage, or says in one line at its start what it lacks."""

import csv
import importlib.util
import os
import subprocess
import sys

import pytest
import tensorflow as tf
from apache_beam.io.filesystems import FileSystems

from common.command_line import UserError
from common.storage import s3
from configs import default
from preprocessing.dataset import schema
from tests.object_store import s3_server
from training import loop
from training.run import workdir

pytestmark = pytest.mark.cluster

_FIELDS = {
    "data.crop": 32,
    "data.shuffle_crops": 64,
    "data.deterministic": True,
    "model.name": "unet",
    "model.features": (6, 8),
    "model.blocks": (1, 1),
    "batch_size": 4,
    "log_every": 2,
    "eval_every": 6,
    "checkpoint_every": 6,
    "val_crops": 2,
    "val_crop": 32,
    "steps": 6,
}

needs_tensorflow_io = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow_io") is None, reason="no tensorflow-io; pip install 'cleanplate[s3]'"
)


@pytest.fixture(scope="module")
def store(dataset):
    """An S3 server with the dataset at s3://archive/tfrecords."""
    with s3_server() as server:
        for path in dataset.iterdir():
            server.client.upload_file(str(path), server.bucket, f"tfrecords/{path.name}")
        yield server


@pytest.fixture(autouse=True)
def environment(monkeypatch, store):
    """What AWS's own tools read, and nothing of what an earlier test told Beam."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", store.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for region in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(region, "us-east-1")
    monkeypatch.setattr(FileSystems, "_pipeline_options", None)
    s3._client.cache_clear()
    yield
    s3._client.cache_clear()


def _train(directory, canvas_path, folder, **fields):
    fields = {**_FIELDS, "data.dir": directory, "source": f"watermark:canvas={canvas_path}", **fields}
    flags = [f"--config.{name}={value}" for name, value in fields.items()]
    command = [sys.executable, "-m", "training.train", f"--workdir={folder}", "--precision=float32", *flags]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def _losses(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return [(row["step"], row["loss"]) for row in csv.DictReader(file) if row["loss"]]


@needs_tensorflow_io
def test_a_bucket_trains_like_the_same_files_on_a_disk(store, dataset, canvas_path, tmp_path):
    for name, directory in (("disk", dataset), ("bucket", f"{store.url}/tfrecords")):
        done = _train(directory, canvas_path, tmp_path / name)
        assert done.returncode == 0, done.stderr[-2000:]
        assert "pure virtual" not in done.stderr
    assert len(_losses(tmp_path / "disk")) == 3
    assert _losses(tmp_path / "bucket") == _losses(tmp_path / "disk")


@needs_tensorflow_io
def test_a_shard_that_is_not_in_the_bucket_ends_the_run_before_its_first_step(store, dataset, canvas_path, tmp_path):
    path = dataset / schema.DATASET_INFO
    store.client.upload_file(str(path), store.bucket, f"bare/{path.name}")
    done = _train(f"{store.url}/bare", canvas_path, tmp_path / "run")
    assert done.returncode == 1 and not (tmp_path / "run").exists()
    last = done.stderr.splitlines()[-1]
    assert last.startswith(
        "error: --config.data.dir=s3://archive/bare: TensorFlow cannot open s3://archive/bare/train-0"
    )
    assert "aws s3 sync s3://archive/bare FOLDER" in last


def _config(directory, canvas_path):
    config = default.get_config()
    config.update_from_flattened_dict({**_FIELDS, "data.dir": directory, "source": f"watermark:canvas={canvas_path}"})
    return config


def test_without_a_file_system_for_the_scheme_the_run_ends_before_it_begins(store, canvas_path, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_io", None)
    folder = tmp_path / "run"
    with pytest.raises(UserError) as caught:
        strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
        loop.train_and_evaluate(_config(f"{store.url}/tfrecords", canvas_path), str(folder), strategy, False)
    assert str(caught.value) == (
        "--config.data.dir=s3://archive/tfrecords: TensorFlow has no file system for s3://; "
        "pip install 'cleanplate[s3]', or copy the dataset to a disk, aws s3 sync s3://archive/tfrecords FOLDER, and "
        "give --config.data.dir=FOLDER"
    )
    assert not folder.exists()


def _complaint(directory):
    with pytest.raises(UserError) as caught:
        schema.read_dataset_info(directory)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_description_is_read_with_what_the_environment_says(store):
    assert schema.read_dataset_info(f"{store.url}/tfrecords")["splits"]["train"]["images"] == 11


def test_without_credentials_the_description_is_refused_at_once(store, monkeypatch, tmp_path):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    said = _complaint(f"{store.url}/tfrecords")
    assert "s3://archive/tfrecords/dataset_info.json: cannot be read: Unable to locate credentials" in said
    assert "AWS_ACCESS_KEY_ID" in said and "AWS_PROFILE" in said


def test_a_server_that_does_not_answer_is_named(store, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    said = _complaint(f"{store.url}/tfrecords")
    assert "http://127.0.0.1:1" in said and "AWS_ENDPOINT_URL" in said


def test_an_unfinished_job_in_a_bucket_and_a_bucket_that_is_not_there_are_told_apart(store):
    assert "no dataset_info.json, so its job did not finish" in _complaint(f"{store.url}/elsewhere")
    assert "bucket does not exist" in _complaint("s3://nowhere/tfrecords")


def test_a_missing_extra_of_beam_is_named(store, monkeypatch):
    monkeypatch.setattr("apache_beam.io.aws.clients.s3.boto3_client.boto3", None)
    assert "pip install 'apache-beam[aws]'" in _complaint(f"{store.url}/tfrecords")
    said = _complaint("ftp://archive/tfrecords")
    assert "no file system for ftp:// here; Beam knows s3://, gs://" in said


def test_a_workdir_at_a_url_is_refused_instead_of_a_folder_of_that_name(canvas_path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="--workdir=s3://archive/run: a run's folder is on a disk"):
        workdir.claim("s3://archive/run", _config("tfrecords", canvas_path))
    assert os.listdir(tmp_path) == []
