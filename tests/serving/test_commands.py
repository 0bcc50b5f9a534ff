"""The three commands, run as people run them: the line when ready, the line when wrong, the exit codes."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

from tests.serving.conftest import encoded

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]


def command(module, *arguments):
    return [sys.executable, "-m", module, *map(str, arguments)]


def run(module, *arguments):
    return subprocess.run(
        command(module, *arguments), cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.fixture(scope="module")
def served(export_dir):
    """A server in a process of its own: the process, and the line it printed when it was ready."""
    arguments = command("serving.server", f"--model_base_path={export_dir}", "--port=0")
    process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    yield process, process.stdout.readline().strip()
    process.kill()
    process.wait()


def test_server_and_client_from_start_to_end(served, photo, tmp_path):
    process, line = served
    assert line.startswith("serving cleanplate version 1 at 127.0.0.1:") and line.endswith("stop with Ctrl-C")
    address = line.split(" at ")[1].split()[0]

    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(encoded(photo[:99, :77], "JPEG"))
    restored = run("serving.client", f"--server={address}", tmp_path / "in", tmp_path / "out")
    assert restored.returncode == 0, restored.stderr
    assert restored.stdout.startswith("restored 1, failed 0; ") and "images/s" in restored.stdout
    assert os.listdir(tmp_path / "out") == ["a.jpg"]

    (tmp_path / "in" / "bad.png").write_bytes(b"no picture")
    failed = run("serving.client", f"--server={address}", tmp_path / "in", tmp_path / "out")
    assert failed.returncode == 1
    assert "failed: bad.png: not a JPEG" in failed.stderr and "Traceback" not in failed.stderr

    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
    assert "Traceback" not in process.stderr.read()


@pytest.mark.parametrize(
    ("module", "arguments", "line"),
    [
        ("serving.server", ["--model_base_path=/nowhere"], "error: model cleanplate: /nowhere is not a folder"),
        ("serving.client", ["in"], "error: two arguments are needed"),
        (
            "serving.client",
            ["--server=localhost:1", str(ROOT / "serving"), "out"],
            f"error: {ROOT}/serving: no pictures",
        ),
        ("serving.export", ["--export_dir=out"], "error: --workdir is missing"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_1(module, arguments, line):
    result = run(module, *arguments)
    assert result.returncode == 1
    assert result.stdout == ""
    [said] = result.stderr.strip().splitlines()
    assert said.startswith(line)


def test_a_server_that_is_down_is_one_line(photo, tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(photo[:9, :9]))
    result = run("serving.client", "--server=localhost:1", tmp_path / "a.png", tmp_path / "out")
    assert result.returncode == 1
    [said] = result.stderr.strip().splitlines()
    assert said.startswith("error: no server answers at localhost:1; start one with python -m serving.server")
    assert not (tmp_path / "out").exists()


def test_importing_the_entry_modules_defines_no_flags():
    code = """
from absl import flags
before = set(flags.FLAGS)
import serving.client, serving.export, serving.server
assert not {"server", "model_name", "workdir", "port"} & (set(flags.FLAGS) - before)
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
