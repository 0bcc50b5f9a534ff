"""The files for the real TF Serving are what it reads: by its own protos where our packages have them."""

import pathlib
import re

import kubernetes_validate
import pytest
import yaml
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from serving.endpoint import model_config
from serving.endpoint.model_store import ModelStore
from tests.serving.conftest import predict_request

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
    assert dict(model.version_labels) == {"stable": 1, "canary": 1}


def test_the_embedded_server_reads_the_same_models_config(identity_dir, tmp_path):
    text = (FOLDER / "models.config").read_text().replace("/models/cleanplate", str(identity_dir))
    with ModelStore(model_config.parse(text, "models.config"), poll_seconds=0) as store:
        for label in ("stable", "canary"):
            assert store.servable(predict_request("cleanplate", "", "x", 0, label=label).model_spec).version == 1


def test_the_gpu_file_changes_the_same_service():
    override = yaml.safe_load((FOLDER / "docker-compose.gpu.yml").read_text())["services"]["tf-serving"]
    assert override["image"].endswith(":2.15.1-gpu")
    [device] = override["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}


@pytest.fixture(scope="module")
def cluster():
    """What Kubernetes is given, by kind."""
    return {part["kind"]: part for part in yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text())}


def test_the_cluster_s_files_are_what_kubernetes_takes(cluster):
    for part in cluster.values():
        kubernetes_validate.validate(part, kubernetes_validate.latest_version(), strict=True)


def test_the_deployment_runs_what_compose_runs(cluster, service):
    pod = cluster["Deployment"]["spec"]["template"]
    [container] = pod["spec"]["containers"]
    assert set(container["args"]) - set(service["command"]) == {"--port=8500", "--rest_api_port=8501"}
    assert container["image"] == service["image"]
    assert cluster["Service"]["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    named = {port["name"] for port in container["ports"]}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        [port] = [action["port"] for action in container[probe].values() if isinstance(action, dict)]
        assert port in named
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["spec"]["volumes"]}


def test_the_configmap_holds_the_files_the_command_names(cluster):
    kustomization = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
    [generated] = kustomization["configMapGenerator"]
    [container] = cluster["Deployment"]["spec"]["template"]["spec"]["containers"]
    named = {argument.split("=/config/")[1] for argument in container["args"] if "=/config/" in argument}
    assert set(generated["files"]) == named and all((FOLDER / name).is_file() for name in named)
    [volume] = [v for v in cluster["Deployment"]["spec"]["template"]["spec"]["volumes"] if v["name"] == "config"]
    assert volume["configMap"]["name"] == generated["name"]
    assert kustomization["resources"] == ["kubernetes.yaml"]


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
