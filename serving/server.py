"""Serves exported models over gRPC as TF Serving does, from this process: no Docker, no other server.

    python -m serving.server --model_base_path=runs/demo/export --port=8500

In: a folder of versions as `python -m serving.export` writes them. The newest is served; a newer one that appears is
loaded and warmed up while the old one answers, and no request is lost in between.

    MODEL_BASE_PATH/
      1/saved_model.pb …
      2/saved_model.pb …      served

Out: TF Serving's `PredictionService` (Predict, GetModelMetadata) and `ModelService` (GetModelStatus,
HandleReloadConfigRequest) with its status codes, so that its clients work here and ours work there. When it is ready
it prints one line:

    serving cleanplate version 2 at 127.0.0.1:8500 (gRPC); stop with Ctrl-C

Ctrl-C or SIGTERM lets the requests under way finish; exit code 0. It listens on this machine alone unless `--host`
says otherwise: there is no authentication, so whoever reaches the port may use the model.
"""

from __future__ import annotations

from collections.abc import Sequence

from absl import flags
from tensorflow_serving.config import model_server_config_pb2

from configs import command_line, entry_flags
from configs.command_line import UserError
from configs.stopping import stop_asked
from serving.endpoint import Endpoint, Limits
from serving.model_store import ModelStore

_FLAGS = flags.FlagValues()
_MODEL_BASE_PATH = flags.DEFINE_string(
    "model_base_path", None, "The folder that holds the version folders.", flag_values=_FLAGS
)
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
_DRAIN = flags.DEFINE_float(
    "drain_seconds", 30.0, "At the end, how long requests under way may take.", 0.0, flag_values=_FLAGS
)


def serve(
    models: Sequence[model_server_config_pb2.ModelConfig],
    *,
    host: str,
    port: int,
    poll_seconds: float,
    limits: Limits,
) -> None:
    """Serves until the process is asked to end; prints a line when it is ready.

    Args:
      models: name and base path of each.
      host: the address to listen on.
      port: 0 picks a free one.
      poll_seconds: how often to look for new versions; 0 for never.
      limits: what the server takes on.

    Raises:
      UserError: a model cannot be loaded, or the address cannot be bound.
    """
    with ModelStore(models, poll_seconds) as store, Endpoint(store, host, port, limits) as endpoint:
        stop = stop_asked()  # before the line that tells others that we are here
        served = ", ".join(f"{name} version {', '.join(map(str, numbers))}" for name, numbers in store.served().items())
        print(f"serving {served} at {endpoint.address} (gRPC); stop with Ctrl-C", flush=True)
        stop.wait()
        print("stopping: requests under way may finish", flush=True)


def main(argv: Sequence[str]) -> None:
    """Reads the flags and serves."""
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}; everything is a flag here, --help lists them")
    if not _MODEL_BASE_PATH.value:
        raise UserError("--model_base_path is missing; name the folder that python -m serving.export wrote into")
    model = model_server_config_pb2.ModelConfig(name=_MODEL_NAME.value, base_path=_MODEL_BASE_PATH.value)
    limits = Limits(
        running=_RUNNING.value,
        waiting=_WAITING.value,
        message_bytes=_MESSAGE_MB.value << 20,
        drain_seconds=_DRAIN.value,
    )
    serve([model], host=_HOST.value, port=_PORT.value, poll_seconds=_POLL.value, limits=limits)


def run() -> None:
    """The console script."""
    entry_flags.adopt(_FLAGS)
    command_line.run(main)


if __name__ == "__main__":
    run()
