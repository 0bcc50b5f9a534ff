"""Health, reflection and metrics, asked as other people's tools ask: by gRPC's own stubs and by Prometheus's parser."""

import threading
import urllib.request

import grpc
import pytest
from google.protobuf import descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from prometheus_client.parser import text_string_to_metric_families

from common.command_line import UserError
from serving.endpoint.endpoint import Endpoint
from serving.endpoint.model_store import ModelStore
from serving.endpoint.prometheus import PATH, Metrics
from tests.serving.conftest import PIXEL, Stubs, model_config, predict_request, refused

pytestmark = pytest.mark.slow

PREDICTION, MODEL = "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"


def test_every_service_is_well_and_others_are_unknown(stubs):
    health = health_pb2_grpc.HealthStub(stubs.channel)
    for service in ("", PREDICTION, MODEL):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert refused(health.Check, health_pb2.HealthCheckRequest(service="x"))[0] == grpc.StatusCode.NOT_FOUND


def test_a_server_that_ends_says_so_to_who_watches(identity_dir):
    seen, first = [], threading.Event()

    def watch(channel):
        for answer in health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=PREDICTION)):
            seen.append(answer.status)
            first.set()
            if answer.status == health_pb2.HealthCheckResponse.NOT_SERVING:
                return

    with ModelStore([model_config("identity", identity_dir)], 0) as store:
        with Endpoint(store) as endpoint:
            watching = threading.Thread(target=watch, args=[grpc.insecure_channel(endpoint.address)], daemon=True)
            watching.start()
            assert first.wait(30)
        watching.join(30)
    assert seen == [health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING]


def test_reflection_describes_the_services(stubs):
    database = ProtoReflectionDescriptorDatabase(stubs.channel)
    assert {PREDICTION, MODEL, "grpc.health.v1.Health"} <= set(database.get_services())
    pool = descriptor_pool.DescriptorPool(database)
    predict = pool.FindServiceByName(PREDICTION).FindMethodByName("Predict")
    assert "inputs" in predict.input_type.fields_by_name
    assert "GetModelStatus" in pool.FindServiceByName(MODEL).methods_by_name


def _scraped(url):
    text = urllib.request.urlopen(url, timeout=30).read().decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, *sorted(sample.labels.items())): sample.value for sample in samples}


def test_requests_are_counted_by_model_and_status(identity_dir):
    metrics = Metrics()
    with (
        ModelStore([model_config("identity", identity_dir)], 0) as store,
        Endpoint(store, metrics=metrics) as endpoint,
        metrics.exposed("127.0.0.1", 0) as url,
    ):
        assert url.endswith(PATH)
        predict = Stubs(endpoint.address).prediction.Predict
        for _ in range(3):
            predict(predict_request("identity", "restore", "images", PIXEL))
        refused(predict, predict_request("identity", "restore", "pictures", PIXEL))
        for name in ("no such model", "nor this"):
            refused(predict, predict_request(name, "restore", "images", PIXEL))
        scraped = _scraped(url)
    count, latency = ":tensorflow:serving:request_count", ":tensorflow:serving:request_latency"
    assert scraped[count, ("model_name", "identity"), ("status", "OK")] == 3
    assert scraped[count, ("model_name", "identity"), ("status", "INVALID_ARGUMENT")] == 1
    assert scraped[count, ("model_name", "unknown"), ("status", "NOT_FOUND")] == 2
    labels = ("API", "Predict"), ("entrypoint", "GRPC"), ("model_name", "identity")
    assert scraped[(f"{latency}_count", *labels)] == 4
    assert scraped[(f"{latency}_bucket", *sorted([*labels, ("le", "+Inf")]))] == 4
    assert scraped[("cleanplate_predictions_running",)] == scraped[("cleanplate_predictions_waiting",)] == 0


def test_a_port_for_metrics_that_is_taken_is_named(server):
    port = int(server.split(":")[1])
    with pytest.raises(UserError, match=f"cannot listen on 127.0.0.1:{port} for metrics"):
        with Metrics().exposed("127.0.0.1", port):
            pass
