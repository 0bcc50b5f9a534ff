"""The gRPC server that runs the services: socket, limits, startup and shutdown."""

from __future__ import annotations

import dataclasses
import os
from concurrent import futures

import grpc
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from common.command_line import UserError
from serving.endpoint import introspection
from serving.endpoint.model_store import ModelStore
from serving.endpoint.prometheus import Metrics
from serving.endpoint.service import ModelService, PredictionService, RunSlots

# Threads for status and metadata calls while predictions occupy the others, and for rejecting predictions if the queue
# is full.
_SPARE_THREADS = 4


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of one server.

    Attributes:
      running: maximum number of concurrent predictions; 0 for one per processor.
      waiting: maximum number of queued predictions; further ones are rejected with RESOURCE_EXHAUSTED.
      message_bytes: maximum size of a request and of an answer.
      drain_seconds: at shutdown, how long requests in progress may take.
    """

    running: int = 0
    waiting: int = 64
    message_bytes: int = 256 << 20
    drain_seconds: float = 30.0


class Endpoint:
    """A running server; a context manager that drains it on exit.

    Besides TF Serving's services, it offers gRPC health checking and reflection. While draining, it is NOT_SERVING.

        with ModelStore(configs, poll_seconds=1) as store, Endpoint(store) as endpoint:
            Restorer(endpoint.address).restore(pixels)

    Attributes:
      address: `host:port`; if port 0 was requested, with the port that was picked.
    """

    def __init__(
        self,
        store: ModelStore,
        host: str = "127.0.0.1",
        port: int = 0,
        limits: Limits | None = None,
        credentials: grpc.ServerCredentials | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        """Starts serving.

        Args:
          store: the models.
          host: the interface; "0.0.0.0" for all, which allows access to anyone who can reach this machine.
          port: 0 picks a free one.
          limits: concurrency, queue, message size and drain time; None for the defaults.
          credentials: TLS credentials from `tls.server_credentials`; None for plain text.
          metrics: receives the counts; None discards them.

        Raises:
          UserError: the address cannot be bound.
        """
        self._limits = limits or Limits()
        running = self._limits.running or os.cpu_count() or 1
        threads = running + self._limits.waiting + _SPARE_THREADS
        self._server = grpc.server(
            futures.ThreadPoolExecutor(threads, thread_name_prefix="grpc"),
            maximum_concurrent_rpcs=threads,
            options=[
                ("grpc.max_receive_message_length", self._limits.message_bytes),
                ("grpc.max_send_message_length", self._limits.message_bytes),
                # Otherwise a second server could start on the same port and take half of the requests.
                ("grpc.so_reuseport", 0),
            ],
        )
        metrics = metrics or Metrics()
        slots = RunSlots(running, self._limits.waiting, metrics)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            PredictionService(store, slots, metrics), self._server
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(store), self._server)
        self._health = introspection.add_health(self._server)
        introspection.add_reflection(self._server)
        try:
            address = f"{host}:{port}"
            bound = (
                self._server.add_secure_port(address, credentials)
                if credentials
                else self._server.add_insecure_port(address)
            )
        except RuntimeError:
            bound = 0
        if not bound:
            raise UserError(
                f"cannot listen on {host}:{port}: another process has the port, or {host} is not an address of "
                "this machine; choose another --port (0 picks a free one) or --host"
            )
        self.address = f"{host}:{bound}"
        self._server.start()

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Rejects new requests and waits for those in progress."""
        self._health.enter_graceful_shutdown()
        self._server.stop(self._limits.drain_seconds).wait()
