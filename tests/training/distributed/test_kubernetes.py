"""Kubernetes takes the workers' Job, which gives every pod the TF_CONFIG that `training.distributed.workers` reads."""

import json
import pathlib
import subprocess

import kubernetes_validate
import pytest
import yaml

from training.distributed import workers

_FILE = pathlib.Path(workers.__file__).parents[1] / "kubernetes" / "workers.yaml"


@pytest.fixture(scope="module")
def parts():
    """What Kubernetes is given, by kind."""
    return {part["kind"]: part for part in yaml.safe_load_all(_FILE.read_text())}


@pytest.fixture(scope="module")
def container(parts):
    [container] = parts["Job"]["spec"]["template"]["spec"]["containers"]
    return container


def test_it_is_what_kubernetes_takes(parts):
    assert set(parts) == {"Service", "Job"}
    for part in parts.values():
        kubernetes_validate.validate(part, kubernetes_validate.latest_version(), strict=True)


def _run(container, index, folder):
    """What the container's command calls in the pod of this index: (TF_CONFIG, arguments)."""
    stub = folder / "python"
    stub.write_text('#!/bin/bash\nprintf "%s\\0" "$TF_CONFIG" "$@"\n')
    stub.chmod(0o755)
    variables = {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}
    environment = {**variables, "PATH": f"{folder}:/usr/bin:/bin", "JOB_COMPLETION_INDEX": str(index)}
    done = subprocess.run(
        [*container["command"], *container["args"]], env=environment, check=True, capture_output=True, text=True
    )
    tf_config, *arguments = done.stdout.split("\0")[:-1]
    return json.loads(tf_config), arguments


def test_every_pod_describes_the_same_cluster_and_itself(parts, container, tmp_path):
    job, service = parts["Job"], parts["Service"]
    count = job["spec"]["completions"]
    assert job["spec"]["completionMode"] == "Indexed" and job["spec"]["parallelism"] == count > 1
    [port] = [port["containerPort"] for port in container["ports"]]
    # The host name of an indexed Job's pod, and the domain that its headless Service makes of `subdomain`.
    names = [f"{job['metadata']['name']}-{k}.{service['metadata']['name']}:{port}" for k in range(count)]
    for index in range(count):
        described, _ = _run(container, index, tmp_path)
        assert described == {"cluster": {"worker": names}, "task": {"type": "worker", "index": index}}


def test_the_service_finds_the_pods_before_they_are_ready(parts):
    service, pod = parts["Service"], parts["Job"]["spec"]["template"]
    assert service["spec"]["clusterIP"] == "None" and service["spec"]["publishNotReadyAddresses"]
    assert pod["spec"]["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()


def test_workers_train_together_into_a_folder_that_all_mount(container, tmp_path):
    _, arguments = _run(container, 0, tmp_path)
    assert arguments[:3] == ["-m", "training.train", "--strategy=multi_worker"]
    [folder] = [argument.split("=")[1] for argument in arguments if argument.startswith("--workdir=")]
    assert any(folder.startswith(mount["mountPath"]) for mount in container["volumeMounts"] if mount["name"] == "runs")


def test_a_lost_peer_is_started_again_and_an_error_ends_the_job(parts, container):
    spec = parts["Job"]["spec"]
    assert spec["template"]["spec"]["restartPolicy"] == "Never"  # a pod failure policy is for no other
    actions = {}
    for rule in spec["podFailurePolicy"]["rules"]:
        codes = rule.get("onExitCodes", {"values": ["disruption"]})
        assert codes.get("containerName", container["name"]) == container["name"]
        actions.update(dict.fromkeys(codes["values"], rule["action"]))
    assert actions == {workers.LOST_PEER: "Ignore", "disruption": "Ignore", 1: "FailJob"}
