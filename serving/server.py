"""Serves exported models over gRPC with TF Serving's API, in this process: no Docker, no other server.

    python -m serving.server --model_base_path=runs/demo/export --port=8500

Input: a folder of versions written by `python -m serving.export`. The newest is served. When a newer one appears, it is
loaded and warmed up while the old one keeps answering, so no request is lost.

    MODEL_BASE_PATH/
      1/saved_model.pb …
      2/saved_model.pb …      served

Alternatively, `--model_config_file` names a file in TF Serving's format that lists several models with version policies
and labels; `serving/tf_serving/models.config` is an example.

Output: TF Serving's `PredictionService` (Predict, GetModelMetadata) and `ModelService` (GetModelStatus,
HandleReloadConfigRequest) with its status codes, so TF Serving's clients work with this server and our client works
with TF Serving; gRPC health checking and reflection; with `--monitoring_port`, Prometheus metrics. When ready, it
prints one line:

    serving cleanplate version 2 at 127.0.0.1:8500 (gRPC); stop with Ctrl-C

Ctrl-C or SIGTERM stops it with exit code 0 after requests in progress have finished. It listens only on this machine
unless `--host` says otherwise. Anyone who can reach the port can use the model, unless `--tls_client_ca` restricts it
to clients with a certificate.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Sequence

import grpc
from absl import flags, logging
from tensorflow_serving.config import model_server_config_pb2

from common import command_line, entry_flags
from common.command_line import UserError
from common.stopping import stop_asked
from serving.endpoint import model_config, tls
from serving.endpoint.endpoint import Endpoint, Limits
from serving.endpoint.model_store import ModelStore
from serving.endpoint.prometheus import Metrics

_FLAGS = flags.FlagValues()
_MODEL_BASE_PATH = flags.DEFINE_string(
    "model_base_path", None, "The folder that holds the version folders.", flag_values=_FLAGS
)
_MODEL_CONFIG_FILE = flags.DEFINE_string(
    "model_config_file", None, "TF Serving's list of models, instead of --model_base_path.", flag_values=_FLAGS
)
_CONFIG_POLL = flags.DEFINE_float(
    "model_config_file_poll_wait_seconds", 0.0, "How often to read that file again; 0 for never.", 0.0,
    flag_values=_FLAGS,
)  # fmt: skip
_ANY_LABEL = flags.DEFINE_bool(
    "allow_version_labels_for_unavailable_models", False, "A label may be for a version that is yet to come.",
    flag_values=_FLAGS,
)  # fmt: skip
_MODEL_NAME = flags.DEFINE_string("model_name", "cleanplate", "What clients call the model.", flag_values=_FLAGS)
_HOST = flags.DEFINE_string(
    "host", "127.0.0.1", "The address to listen on; 0.0.0.0 for all of this machine's.", flag_values=_FLAGS
)
_PORT = flags.DEFINE_integer(
    "port", 8500, "The port; 0 picks a free one.", lower_bound=0, upper_bound=65535, flag_values=_FLAGS
)
_POLL = flags.DEFINE_float(
    "file_system_poll_wait_seconds", 1.0, "How often to look for new versions; 0 for never.", 0.0,
    flag_values=_FLAGS,
)  # fmt: skip
_RUNNING = flags.DEFINE_integer(
    "max_running", 0, "Predictions computed at once; 0 for one a processor.", 0, flag_values=_FLAGS
)
_WAITING = flags.DEFINE_integer(
    "max_waiting", 64, "Predictions in the queue; one more is RESOURCE_EXHAUSTED.", 0, flag_values=_FLAGS
)
_MESSAGE_MB = flags.DEFINE_integer(
    "max_message_mb", 256, "The largest request and the largest answer, MiB.", 1, 2047, flag_values=_FLAGS
)
_MONITORING_PORT = flags.DEFINE_integer(
    "monitoring_port", None, "Answer http://HOST:PORT/monitoring/prometheus/metrics; 0 picks a free port.", 0, 65535,
    flag_values=_FLAGS,
)  # fmt: skip
_TLS_CERTIFICATE = flags.DEFINE_string(
    "tls_certificate", None, "The server's certificate chain, PEM; plain text without it.", flag_values=_FLAGS
)
_TLS_KEY = flags.DEFINE_string("tls_key", None, "Its private key, PEM.", flag_values=_FLAGS)
_TLS_CLIENT_CA = flags.DEFINE_string(
    "tls_client_ca", None, "Let in only clients with a certificate of these authorities, PEM.", flag_values=_FLAGS
)
_DRAIN = flags.DEFINE_float(
    "drain_seconds", 30.0, "At the end, how long requests under way may take.", 0.0, flag_values=_FLAGS
)


@dataclasses.dataclass(frozen=True)
class Served:
    """The models of a server.

    Attributes:
      models: name, base path, version policy and labels of each model.
      poll_seconds: seconds between checks for new versions; 0 for never.
      config_file: the file that `models` were read from, if any.
      config_poll_seconds: seconds between reads of that file; 0 to read it only once.
      any_label: allow labels for versions that are not served (yet).
    """

    models: Sequence[model_server_config_pb2.ModelConfig]
    poll_seconds: float = 1.0
    config_file: str | None = None
    config_poll_seconds: float = 0.0
    any_label: bool = False

    def follow(self, store: ModelStore, stop: threading.Event) -> None:
        """Applies changes to the config file to `store` until `stop` is set."""
        models = list(self.models)
        while not stop.wait(self.config_poll_seconds or None):
            try:
                configured = model_config.read(self.config_file)
                if configured != models:
                    store.replace(configured)
                    models = configured
                    logging.info("%s is read again", self.config_file)
            except UserError as error:  # keep serving the current models until the file is fixed
                logging.warning("%s", error)


def serve(
    served: Served,
    *,
    host: str,
    port: int,
    limits: Limits,
    credentials: grpc.ServerCredentials | None = None,
    monitoring_port: int | None = None,
) -> None:
    """Serves until the process is told to stop; prints a line when ready.

    Args:
      served: the models.
      host: the address to listen on.
      port: 0 picks a free one.
      limits: concurrency, queue, message size and drain time.
      credentials: TLS credentials from `tls.server_credentials`; None for plain text.
      monitoring_port: port for Prometheus metrics, 0 for a free one; None for no metrics.

    Raises:
      UserError: a model cannot be loaded, or an address cannot be bound.
    """
    metrics = Metrics()
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(ModelStore(served.models, served.poll_seconds, served.any_label))
        endpoint = stack.enter_context(Endpoint(store, host, port, limits, credentials, metrics))
        watched = "" if monitoring_port is None else stack.enter_context(metrics.exposed(host, monitoring_port))
        stop = stop_asked()  # before the ready line, after which others may send a signal
        names = ", ".join(f"{name} version {', '.join(map(str, numbers))}" for name, numbers in store.served().items())
        also = f", metrics at {watched}" if watched else ""
        print(f"serving {names} at {endpoint.address} (gRPC{' with TLS' if credentials else ''}){also}; "
              "stop with Ctrl-C", flush=True)  # fmt: skip
        served.follow(store, stop)
        print("stopping: requests under way may finish", flush=True)


def _served() -> Served:
    """Returns the models that the flags specify."""
    if _MODEL_CONFIG_FILE.value:
        if _MODEL_BASE_PATH.value:
            raise UserError("--model_base_path and --model_config_file: give one of them")
        models = model_config.read(_MODEL_CONFIG_FILE.value)
        return Served(models, _POLL.value, _MODEL_CONFIG_FILE.value, _CONFIG_POLL.value, _ANY_LABEL.value)
    if not _MODEL_BASE_PATH.value:
        raise UserError(
            "--model_base_path is missing; name the folder that python -m serving.export wrote into, or several "
            "models by --model_config_file"
        )
    model = model_server_config_pb2.ModelConfig(name=_MODEL_NAME.value, base_path=_MODEL_BASE_PATH.value)
    return Served([model], _POLL.value)


def main(argv: Sequence[str]) -> None:
    """Reads the flags and serves."""
    command_line.refuse_positional(argv)
    credentials = tls.server_credentials(_TLS_CERTIFICATE.value, _TLS_KEY.value, _TLS_CLIENT_CA.value)
    limits = Limits(
        running=_RUNNING.value,
        waiting=_WAITING.value,
        message_bytes=_MESSAGE_MB.value << 20,
        drain_seconds=_DRAIN.value,
    )
    serve(
        _served(),
        host=_HOST.value,
        port=_PORT.value,
        limits=limits,
        credentials=credentials,
        monitoring_port=_MONITORING_PORT.value,
    )


def run() -> None:
    """The console script."""
    entry_flags.adopt(_FLAGS)
    command_line.run(main)


if __name__ == "__main__":
    run()
