"""Starts other programs from a process in which TensorFlow or gRPC already has threads.

    from common import child_process

    listing = child_process.run(["fc-list", "--format", "%{file}\n"], capture_output=True, text=True)
    encoder = child_process.start([ffmpeg, "-i", "-", "out.mp4"], stdin=subprocess.PIPE)

`fork` copies one thread of a process but the locks of all. Before it does, it runs the handlers that libraries
registered with `pthread_atfork`; gRPC's wait for its threads or abort the process ("Other threads are currently calling
into gRPC", a failed check, a hang). All for nothing, since another program replaces the copy at once. So this module
starts every child with `posix_spawn`, which copies nothing and runs no handlers: glibc creates the child with
`clone(CLONE_VM | CLONE_VFORK)`, macOS with a system call of that name. `subprocess` uses it in Python 3.9 and newer,
provided that it is not asked for anything `posix_spawn` cannot do. The functions here ensure that:

- the program's path is absolute;
- `close_fds` is off (Python's own files and gRPC's sockets are closed in the child anyway);
- `preexec_fn`, `cwd`, `start_new_session`, `process_group`, `pass_fds`, user, group and umask are not used.

Otherwise Python 3.10 and newer would use `vfork` (except with `preexec_fn`, which always forks), and Python 3.9 would
fork. With a C library other than glibc or macOS's, that is what happens in any case: `vfork` from 3.10 on. Windows has
no `fork`.

Nothing else in this repository starts a process, except two benchmarks that use `multiprocessing` with its "spawn"
method (`vfork` from Python 3.10 on) and libraries (Beam's and Dask's local workers). This module does not import
TensorFlow, so a process that only starts others need not wait for it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import IO, Any, Union

Argument = Union[str, "os.PathLike[str]"]
File = Union[int, IO[Any], None]

# What `posix_spawn` cannot do, a single-threaded Python does in the child before it becomes the program by `execv`.
_BECOME = (sys.executable, "-I", "-S", "-c")
_IN_SESSION = "import os, sys; os.setsid(); os.execv(sys.argv[1], sys.argv[1:])"
_IN_FOLDER = "import os, sys; os.chdir(sys.argv[1]); os.execv(sys.argv[2], sys.argv[2:])"


def start(
    command: Sequence[Argument],
    *,
    stdin: File = None,
    stdout: File = None,
    stderr: File = None,
    text: bool = False,
    env: Mapping[str, str] | None = None,
    new_session: bool = False,
) -> subprocess.Popen:
    """Starts a program.

    Args:
      command: the program (a path, or a name to look up in PATH) and its arguments.
      stdin, stdout, stderr: as in `subprocess.Popen`.
      text: whether pipes carry str rather than bytes.
      env: the complete environment; None for this process's own.
      new_session: make the child the leader of a new session, so that `os.killpg` reaches it and its children.

    Returns:
      The running process.

    Raises:
      FileNotFoundError: the program does not exist.
    """
    arguments = _absolute(command)
    if new_session:
        arguments = [*_BECOME, _IN_SESSION, *arguments]
    return subprocess.Popen(arguments, stdin=stdin, stdout=stdout, stderr=stderr, text=text, env=env, close_fds=False)


def run(
    command: Sequence[Argument],
    *,
    capture_output: bool = False,
    text: bool = False,
    cwd: Argument | None = None,
    check: bool = False,
) -> subprocess.CompletedProcess:
    """Runs a program and waits for it to end.

    Args:
      command: the program (a path, or a name to look up in PATH) and its arguments.
      capture_output: return its stdout and stderr; otherwise it writes to this process's.
      text: whether captured output is str rather than bytes.
      cwd: the folder to run it in; None for this process's own.
      check: raise an error if the exit code is not 0.

    Returns:
      The exit code and the captured output.

    Raises:
      FileNotFoundError: the program does not exist.
      subprocess.CalledProcessError: the program failed and `check` is set.
    """
    arguments = _absolute(command)
    if cwd is not None:
        arguments = [*_BECOME, _IN_FOLDER, os.fspath(cwd), *arguments]
    return subprocess.run(arguments, capture_output=capture_output, text=text, check=check, close_fds=False)


def _absolute(command: Sequence[Argument]) -> list[str]:
    program = shutil.which(os.fspath(command[0]))
    if program is None:
        raise FileNotFoundError(f"{command[0]}: no such program")
    return [os.path.abspath(program), *map(os.fspath, command[1:])]
