"""The files for the real TF Serving are what it reads: by its own protos where our packages have them."""

import pathlib
import re

import pytest
import yaml
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

FOLDER = pathlib.Path(__file__).parents[2] / "serving" / "tf_serving"
# Fields of BatchingParameters, for which tensorflow-serving-api ships no proto.
BATCHING = {
    "max_execution_batch_size": r"\d+",
    "enable_large_batch_splitting": "true|false",
    "max_batch_size": r"\d+",
    "batch_timeout_micros": r"\d+",
    "num_batch_threads": r"\d+",
    "max_enqueued_batches": r"\d+",
}


@pytest.fixture(scope="module")
def service():
    return yaml.safe_load((FOLDER / "docker-compose.yml").read_text())["services"]["tf-serving"]


def test_the_models_config_is_one():
    text = (FOLDER / "models.config").read_text()
    config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    [model] = config.model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == ("cleanplate", "/models/cleanplate", "tensorflow")


def test_the_model_is_mounted_read_only_where_the_config_expects_it(service):
    assert any(volume.endswith(":/models/cleanplate:ro") for volume in service["volumes"])
    assert service["image"].endswith(":2.15.1")


def test_ports_are_open_to_this_machine_alone(service):
    assert service["ports"] == ["127.0.0.1:8500:8500", "127.0.0.1:8501:8501"]


def test_every_file_the_command_names_is_there(service):
    named = [argument.split("=/config/")[1] for argument in service["command"] if "=/config/" in argument]
    assert len(named) == 3
    for name in named:
        assert (FOLDER / name).is_file()


def test_batching_and_monitoring_have_the_fields_tf_serving_knows():
    lines = (FOLDER / "batching_parameters.txt").read_text().splitlines()
    for line in filter(None, (line.partition("#")[0] for line in lines)):
        name, value = re.fullmatch(r"(\w+) \{ value: (\w+) \}", line).groups()
        assert re.fullmatch(BATCHING[name], value)
    monitoring = (FOLDER / "monitoring_config.txt").read_text()
    assert re.search(r'prometheus_config \{\s+enable: true\s+path: "/[\w/]+"\s+\}', monitoring)
