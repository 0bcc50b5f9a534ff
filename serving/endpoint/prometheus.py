"""The server's Prometheus metrics, named like TF Serving's where it has the same ones.

| metric | labels |
| --- | --- |
| `:tensorflow:serving:request_count` | `model_name`, `status`: OK, INVALID_ARGUMENT, … |
| `:tensorflow:serving:request_latency` | `model_name`, `API`, `entrypoint`; microseconds, a histogram |
| `cleanplate_predictions_running`, `cleanplate_predictions_waiting` | |
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import prometheus_client

from common.command_line import UserError
from serving.endpoint.request_error import RequestError

PATH = "/monitoring/prometheus/metrics"
_BUCKETS = tuple(1000.0 * 2**power for power in range(17))  # 1 ms to 65 s
# Label for models that are not served. Otherwise every name that a client makes up would create a time series.
_UNKNOWN = "unknown"


class Metrics:
    """Metrics of one server.

    Attributes:
      registry: the exposed registry.
      running, waiting: gauges of running and queued predictions.
    """

    def __init__(self) -> None:
        self.registry = prometheus_client.CollectorRegistry()
        self.running = prometheus_client.Gauge(
            "cleanplate_predictions_running", "Predictions being computed.", registry=self.registry
        )
        self.waiting = prometheus_client.Gauge(
            "cleanplate_predictions_waiting", "Predictions in the queue.", registry=self.registry
        )
        # A counter, but of type Gauge: a Counter's name would end in _total, and TF Serving's does not.
        self._count = prometheus_client.Gauge(
            ":tensorflow:serving:request_count", "Requests for Predict.", ["model_name", "status"],
            registry=self.registry,
        )  # fmt: skip
        self._latency = prometheus_client.Histogram(
            ":tensorflow:serving:request_latency", "Microseconds from a request's arrival to its answer.",
            ["model_name", "API", "entrypoint"], buckets=_BUCKETS, registry=self.registry,
        )  # fmt: skip

    @contextlib.contextmanager
    def request(self, model_name: str, is_known: bool) -> Iterator[None]:
        """Counts the block as one Predict request, with the status that it ends in."""
        name, status, started = model_name if is_known else _UNKNOWN, "OK", time.perf_counter()
        try:
            yield
        except RequestError as error:
            status = error.code.name
            raise
        except BaseException:
            status = "INTERNAL"
            raise
        finally:
            self._count.labels(name, status).inc()
            self._latency.labels(name, "Predict", "GRPC").observe(1e6 * (time.perf_counter() - started))

    @contextlib.contextmanager
    def exposed(self, host: str, port: int) -> Iterator[str]:
        """Serves the metrics over HTTP during the block; yields the URL.

        Args:
          host: the interface.
          port: 0 picks a free one.

        Raises:
          UserError: the address cannot be bound.
        """
        try:
            server, thread = prometheus_client.start_http_server(port, host, self.registry)
        except OSError as error:
            raise UserError(
                f"cannot listen on {host}:{port} for metrics: {error.strerror or error}; choose another "
                "--monitoring_port (0 picks a free one)"
            ) from error
        try:
            yield f"http://{host}:{server.server_port}{PATH}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
