"""The gRPC server around the services: its socket, its limits, its start and its end."""

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

# For status and metadata calls while predictions occupy their threads, and for refusing predictions beyond the queue.
_SPARE_THREADS = 4


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one server takes on.

    Attributes:
      running: predictions computed at once; 0 for one a processor.
      waiting: predictions that may wait for their turn; one more is refused with RESOURCE_EXHAUSTED.
      message_bytes: the largest request and the largest answer.
      drain_seconds: at the end, how long requests under way may take.
    """

    running: int = 0
    waiting: int = 64
    message_bytes: int = 256 << 20
    drain_seconds: float = 30.0


class Endpoint:
    """A running server; a context manager that drains it at the end.

    Beside TF Serving's services it has gRPC's health checking and reflection. A server that drains is NOT_SERVING.

        with ModelStore(configs, poll_seconds=1) as store, Endpoint(store) as endpoint:
            Restorer(endpoint.address).restore(pixels)

    Attributes:
      address: `host:port`, with the port that was picked if none was asked for.
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
        """Starts to serve.

        Args:
          store: the models.
          host: the interface; "0.0.0.0" for all, which lets in whoever reaches this machine.
          port: 0 picks a free one.
          limits: see `Limits`.
          credentials: see `tls.server_credentials`; None for plain text.
          metrics: where to count.

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
                # Otherwise a second server on the same port starts and takes half of the requests.
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
        """Takes no new requests and waits for those under way."""
        self._health.enter_graceful_shutdown()
        self._server.stop(self._limits.drain_seconds).wait()
