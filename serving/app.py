"""A browser page on top of the client: drop images, compare before and after, download everything.

    python -m serving.app --server=localhost:8500                      uses a server that is already running
    python -m serving.app --export=mine=runs/mine/export               serves an export from this process
    python -m serving.app --export=generic=pretrained/generic --export=keyed=runs/mark/export

Needs the extra `demo` (Gradio, Python 3.10 or newer). A download is byte for byte what `serving.client` writes for the
same file: same format, metadata and alpha. Several images can be downloaded as one zip. If an image cannot be restored,
the page says why and continues with the others.

When ready, it prints one line:

    app at http://127.0.0.1:7860; stop with Ctrl-C

Ctrl-C or SIGTERM stops it with exit code 0. Images are kept in a temporary folder that is deleted when it stops. There
is no authentication, so it listens only on this machine unless `--host` says otherwise. The page loads nothing from
other hosts and sends no telemetry.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pathlib
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence

import grpc
from absl import flags
from PIL import Image, ImageDraw
from tensorflow_serving.config import model_server_config_pb2

from common import command_line, entry_flags, images
from common.command_line import UserError
from common.stopping import stop_asked
from serving.endpoint import tls
from serving.endpoint.endpoint import Endpoint
from serving.endpoint.model_store import ModelStore
from serving.restoring.remote import Restorer

_FLAGS = flags.FlagValues()
_SERVER = flags.DEFINE_string("server", "localhost:8500", "host:port of the server's gRPC.", flag_values=_FLAGS)
_MODEL_NAME = flags.DEFINE_multi_string(
    "model_name", ["cleanplate"], "Models of the server to choose from: a,b or the flag repeated.", flag_values=_FLAGS
)
_EXPORT = flags.DEFINE_multi_string(
    "export",
    [],
    "NAME=EXPORT_DIR: serve this here, instead of asking --server; repeat it for more.",
    flag_values=_FLAGS,
)
_EXAMPLES = flags.DEFINE_string(
    "examples", None, "A folder of pictures to try it with; default: runs/app/examples, if there.", flag_values=_FLAGS
)
_HOST = flags.DEFINE_string(
    "host", "127.0.0.1", "The address to listen on; 0.0.0.0 for all of this machine's.", flag_values=_FLAGS
)
_PORT = flags.DEFINE_integer(
    "port", 7860, "The port; 0 picks a free one.", lower_bound=0, upper_bound=65535, flag_values=_FLAGS
)
_DEADLINE = flags.DEFINE_float(
    "deadline_seconds", 60.0, "How long one picture may take, retries included.", 0.001, flag_values=_FLAGS
)
_CREDENTIALS = tls.define_client_flags(_FLAGS)

_DEFAULT_EXAMPLES = pathlib.Path("runs/app/examples")  # where `make app` puts them


def serve(
    server: str,
    models: Sequence[str],
    *,
    examples: Sequence[pathlib.Path] = (),
    host: str = "127.0.0.1",
    port: int = 0,
    deadline_seconds: float = 60.0,
    credentials: grpc.ChannelCredentials | None = None,
) -> None:
    """Serves the page until the process is told to stop; prints a line when ready.

    Args:
      server: `host:port` of the server's gRPC endpoint; it need not be running yet.
      models: names of the server's models; the first is selected initially.
      examples: example images offered on the page.
      host: the address to listen on.
      port: 0 picks a free one.
      deadline_seconds: maximum time per image.
      credentials: TLS credentials from `tls.channel_credentials`; None for plain text.

    Raises:
      UserError: Gradio is not installed, or the address cannot be bound.
    """
    with contextlib.ExitStack() as stack:
        work_dir = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cleanplate-app-")))
        # Must be set before Gradio is imported: otherwise it sends telemetry.
        os.environ.update(GRADIO_ANALYTICS_ENABLED="False", GRADIO_TEMP_DIR=str(work_dir / "gradio"))
        try:
            from serving.web.page import CSS, THEME, build
        except ModuleNotFoundError as error:
            raise UserError(
                f"{error.name} is not installed; pip install 'cleanplate[demo]', with Python 3.10 or newer"
            ) from error
        logging.getLogger("httpx").setLevel(logging.WARNING)  # Gradio polls itself at startup
        restorers = {
            name: stack.enter_context(Restorer(server, name, deadline_seconds, credentials))
            for name in dict.fromkeys(models)
        }
        page = build(restorers, examples, work_dir)
        _draw_icon(work_dir / "icon.png")
        stop = stop_asked()  # before the ready line, after which others may send a signal
        try:
            page.launch(
                server_name=host,
                server_port=port or _free_port(host),
                theme=THEME,
                css=CSS,
                favicon_path=work_dir / "icon.png",
                allowed_paths=sorted({str(path.parent) for path in examples}),
                footer_links=[],
                run_history=False,
                share=False,
                ssr_mode=False,
                enable_monitoring=False,
                prevent_thread_lock=True,
                quiet=True,
            )
        except OSError as error:
            raise UserError(
                f"cannot listen on {host}:{port}: another process has the port, or {host} is not an address of "
                "this machine; choose another --port (0 picks a free one) or --host"
            ) from error
        print(f"app at {page.local_url.rstrip('/')}; stop with Ctrl-C", flush=True)
        stop.wait()
        page.close(verbose=False)


def _free_port(host: str) -> int:
    with socket.create_server((host, 0)) as probe:
        return probe.getsockname()[1]


def _draw_icon(path: pathlib.Path) -> None:
    """Draws the browser tab's icon: a watermarked half and a clean half with a divider."""
    icon = Image.new("RGB", (64, 64), "#0f766e")
    draw = ImageDraw.Draw(icon)
    draw.rectangle((0, 0, 31, 63), "#99f6e4")
    for start in (-32, 0, 32):
        draw.line((start, 48, start + 48, 0), "#0f766e", 6)
    draw.rectangle((32, 0, 63, 63), "#0f766e")
    draw.line((32, 0, 32, 63), "white", 4)
    icon.save(path)


@contextlib.contextmanager
def _embedded_server(exports: Mapping[str, str]) -> Iterator[str]:
    """Serves export folders by name on a free local port; yields the address."""
    configs = [model_server_config_pb2.ModelConfig(name=name, base_path=path) for name, path in exports.items()]
    with ModelStore(configs, poll_seconds=1.0) as store, Endpoint(store) as endpoint:
        yield endpoint.address


def _exports(given: Sequence[str]) -> dict[str, str]:
    """Parses NAME=EXPORT_DIR arguments into export folders by name."""
    exports: dict[str, str] = {}
    for text in given:
        name, separator, path = text.partition("=")
        if not (name and separator and path):
            raise UserError(f"--export={text}: say what to call it, as in --export=mine=runs/mine/export")
        if name in exports:
            raise UserError(f"--export={text}: {name} is the name of another one already; choose another name")
        exports[name] = path
    return exports


def _examples(folder: str | None) -> list[pathlib.Path]:
    """Lists the images in the folder."""
    if folder is None and not _DEFAULT_EXAMPLES.is_dir():
        return []
    path = pathlib.Path(folder or _DEFAULT_EXAMPLES).absolute()
    if not path.is_dir():
        raise UserError(f"--examples={folder}: no such folder; name one that holds pictures")
    return sorted(file for file in path.iterdir() if images.is_image_name(file))


def main(argv: Sequence[str]) -> None:
    """Reads the flags and serves the page."""
    command_line.refuse_positional(argv)
    exports, examples = _exports(_EXPORT.value), _examples(_EXAMPLES.value)
    if exports and (_FLAGS["server"].present or _FLAGS["model_name"].present):
        raise UserError("--export serves models here: leave out --server and --model_name, or leave out --export")
    names = [name.strip() for value in _MODEL_NAME.value for name in value.split(",") if name.strip()]
    if not names:
        raise UserError("--model_name is empty; name a model of the server")
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(_embedded_server(exports)) if exports else _SERVER.value
        serve(
            server,
            list(exports) or names,
            examples=examples,
            host=_HOST.value,
            port=_PORT.value,
            deadline_seconds=_DEADLINE.value,
            credentials=None if exports else _CREDENTIALS(),
        )


def run() -> None:
    """The console script."""
    entry_flags.adopt(_FLAGS)
    command_line.run(main)


if __name__ == "__main__":
    run()
