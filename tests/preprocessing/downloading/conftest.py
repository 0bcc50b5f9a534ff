"""An archive of photographs, served on this machine, and where it goes."""

import threading

import pytest

from preprocessing.downloading import transfer
from tests.preprocessing.downloading.archive_server import LOST_IN_A_BREAK, Server, serve


@pytest.fixture
def server():
    running = Server()
    threading.Thread(target=running.serve_forever, args=[0.01], daemon=True).start()
    yield running
    running.go_on.set()
    running.shutdown()
    running.server_close()


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch):
    monkeypatch.setattr(transfer, "_RETRIES", transfer._RETRIES.new(backoff_factor=0))


@pytest.fixture
def pictures(photographs):
    """Name in the zip -> bytes, with an entry for the folder, as in COCO's."""
    return {"val2017/": b""} | {f"val2017/{path.name}": path.read_bytes() for path in photographs}


@pytest.fixture
def archive(server, pictures):
    """A zip of twelve photographs, served and described."""
    described = serve(server, pictures)
    assert described.bytes > 10 * LOST_IN_A_BREAK
    return described


@pytest.fixture
def dest(tmp_path):
    return tmp_path / "coco"
