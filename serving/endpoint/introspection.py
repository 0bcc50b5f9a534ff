"""gRPC health checking (for `grpc_health_probe` and Kubernetes) and server reflection (for `grpcurl`).

Both come from gRPC's own packages; https://github.com/grpc/grpc/blob/master/doc/health-checking.md and
server-reflection.md.
"""

from __future__ import annotations

import contextlib
import importlib

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

_SERVICES = {
    "tensorflow.serving.PredictionService": "tensorflow_serving.apis.prediction_service_pb2",
    "tensorflow.serving.ModelService": "tensorflow_serving.apis.model_service_pb2",
}


def add_health(server: grpc.Server) -> health.HealthServicer:
    """Adds `grpc.health.v1.Health`: the server and each service are SERVING until `enter_graceful_shutdown`."""
    # Otherwise every watching client would occupy one of the server's threads.
    servicer = health.HealthServicer(experimental_non_blocking=True)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    for service in ("", *_SERVICES):
        servicer.set(service, health_pb2.HealthCheckResponse.SERVING)
    return servicer


def add_reflection(server: grpc.Server) -> None:
    """Adds `grpc.reflection.v1alpha.ServerReflection` for TF Serving's services, the health service, and itself."""
    for module in _SERVICES.values():
        # These modules were generated for a protobuf version with writable descriptor attributes, and importing them
        # fails when they set one. By then the service description, which reflection needs, has been registered.
        with contextlib.suppress(AttributeError):
            importlib.import_module(module)
    reflection.enable_server_reflection([*_SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
