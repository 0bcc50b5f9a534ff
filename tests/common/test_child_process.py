"""Programs are started without a fork, wherever that is done."""

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from common import child_process

ROOT = Path(__file__).parents[2]
FOLDERS = ("benchmarks", "common", "configs", "preprocessing", "serving", "training")

# Counts forks as gRPC would notice them: by a handler of the C library, which runs before each.
PROBE = """
import ctypes, os, subprocess, sys
forks, started = [], []
handler = ctypes.CFUNCTYPE(None)(lambda: forks.append(1))
assert ctypes.CDLL(None).__register_atfork(handler, None, None, None) == 0
sys.addaudithook(lambda event, _: started.append(event) if event in ("subprocess.Popen", "os.posix_spawn") else None)
"""
needs_glibc = pytest.mark.skipif(
    not sys.platform.startswith("linux") or "glibc" not in str(os.confstr("CS_GNU_LIBC_VERSION")), reason="no glibc"
)


def counted(code):
    """Runs code after the probe, in a process of its own: (forks, programs started, those by posix_spawn)."""
    code = f"{PROBE}\n{code}\nprint(len(forks), started.count('subprocess.Popen'), started.count('os.posix_spawn'))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return tuple(map(int, result.stdout.splitlines()[-1].split()))


@needs_glibc
def test_the_probe_sees_a_fork():
    assert counted("subprocess.run([sys.executable, '--version'], preexec_fn=os.setpgrp)") == (1, 1, 0)


@needs_glibc
def test_nothing_is_forked():
    code = """
from common import child_process
child_process.run(["true"], check=True)
child_process.run([sys.executable, "-c", "print(1)"], cwd="/", capture_output=True, text=True)
pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
child_process.start([sys.executable, "-c", "pass"], env={}, new_session=True, **pipes).communicate()
"""
    assert counted(code) == (0, 3, 3)


def test_a_program_gets_its_arguments_folder_and_environment(tmp_path):
    shows = "import os, sys; print(os.getcwd(), sys.argv[1:], os.environ.get('COLOUR'))"
    here = child_process.run(
        [sys.executable, "-c", shows, "a b", tmp_path], cwd=tmp_path, capture_output=True, text=True
    )
    assert here.stdout == f"{tmp_path.resolve()} {['a b', str(tmp_path)]} None\n"
    started = child_process.start(
        [sys.executable, "-c", shows], stdout=subprocess.PIPE, text=True, env={"COLOUR": "red"}
    )
    assert started.communicate()[0] == f"{os.getcwd()} [] red\n"


def test_an_exit_code_is_told():
    command = [sys.executable, "-c", "raise SystemExit(3)"]
    assert child_process.run(command).returncode == 3
    with pytest.raises(subprocess.CalledProcessError):
        child_process.run(command, check=True)


def test_a_program_that_is_not_there_is_named():
    for start in (child_process.run, child_process.start):
        with pytest.raises(FileNotFoundError, match="no-such-program"):
            start(["no-such-program", "x"])


def test_a_session_of_its_own_can_be_killed_with_its_children():
    grandchild = "import subprocess, sys; subprocess.Popen(['sleep', '60']); print('up', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", grandchild]
    started = child_process.start(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, new_session=True)
    assert started.stdout.readline() == b"up\n"
    assert os.getpgid(started.pid) == started.pid != os.getpgrp()
    os.killpg(started.pid, signal.SIGKILL)
    # The grandchild holds the other end too: the pipe ends when it is gone.
    assert started.stdout.read() == b"" and started.wait() == -signal.SIGKILL


FORKS = {
    "subprocess": {"Popen", "run", "call", "check_call", "check_output", "getoutput", "getstatusoutput"},
    "os": {"fork", "forkpty", "system", "popen", "spawnv", "spawnl", "spawnvp", "spawnlp"},
    "pty": {"fork", "spawn"},
    "multiprocessing": {"Process", "Pool", "Manager"},
    "imageio_ffmpeg": {"read_frames", "write_frames", "count_frames_and_secs"},
    "futures": {"ProcessPoolExecutor"},
}


def starts_of_processes(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if isinstance(node.func.value, ast.Name) and node.func.attr in FORKS.get(node.func.value.id, ()):
                yield f"{path.relative_to(ROOT)}:{node.lineno}"
        if isinstance(node, ast.ImportFrom) and {name.name for name in node.names} & FORKS.get(node.module, set()):
            yield f"{path.relative_to(ROOT)}:{node.lineno}"
        if isinstance(node, ast.keyword) and node.arg == "preexec_fn":
            yield f"{path.relative_to(ROOT)}:{node.value.lineno}"


def test_no_other_module_starts_a_process_by_itself():
    modules = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    assert len(modules) > 100
    found = {start for path in modules for start in starts_of_processes(path)}
    assert {start.partition(":")[0] for start in found} == {"common/child_process.py"}, found
