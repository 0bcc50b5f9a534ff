"""Starting other programs from a process whose TensorFlow or gRPC has threads already.

    from common import child_process

    listing = child_process.run(["fc-list", "--format", "%{file}\n"], capture_output=True, text=True)
    encoder = child_process.start([ffmpeg, "-i", "-", "out.mp4"], stdin=subprocess.PIPE)

`fork` copies one thread of a process and the locks of all: before it does, it runs the handlers that libraries have
registered with `pthread_atfork`, and gRPC's wait for its threads or abort the process ("Other threads are currently
calling into gRPC", a failed check, a hang). Nothing is gained by that, for the copy is replaced by another program at
once. Every child of ours is therefore started by `posix_spawn`, which copies nothing and runs no handlers: glibc makes
the child by `clone(CLONE_VM | CLONE_VFORK)`, macOS by a system call of that name. `subprocess` takes that way in every
Python from 3.9 on, if it is asked for nothing that `posix_spawn` cannot do. That is what the functions here see to:

- the program's path is absolute;
- `close_fds` is off. Python's own files are closed in the child anyway, and so are gRPC's sockets;
- no `preexec_fn`, `cwd`, `start_new_session`, `process_group`, `pass_fds`, user, group or umask.

Without these, Python 3.10 and newer would use `vfork`, except for `preexec_fn`, which always forks, and Python 3.9
would fork. Python on another C library than glibc or macOS's does as it does without these rules: `vfork` from 3.10 on.
Windows has no `fork`.

Nothing else in this repository starts a process, but for `multiprocessing` with its "spawn" method in two benchmarks,
which is `vfork` from Python 3.10 on, and what libraries do: Beam's local workers, Dask's. This module imports no
TensorFlow, so that who only starts others need not wait for it.
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

# What `posix_spawn` cannot do is done in the child, which has one thread, by a Python that then becomes the program.
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
      command: the program, a path or a name that is looked up in PATH, and its arguments.
      stdin, stdout, stderr: as `subprocess.Popen` takes them.
      text: whether pipes carry str rather than bytes.
      env: all environment variables; None for this process's own.
      new_session: the child leads a session of its own, so that `os.killpg` reaches it and its children.

    Returns:
      The running process.

    Raises:
      FileNotFoundError: there is no such program.
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
    """Runs a program to its end.

    Args:
      command: the program, a path or a name that is looked up in PATH, and its arguments.
      capture_output: whether to return what it writes to stdout and stderr, which it shares with us otherwise.
      text: whether that is str rather than bytes.
      cwd: the folder to run it in; None for this process's own.
      check: whether an exit code other than 0 is an error.

    Returns:
      The exit code and what it wrote.

    Raises:
      FileNotFoundError: there is no such program.
      subprocess.CalledProcessError: it failed, and `check` is set.
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
