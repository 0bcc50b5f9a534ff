r"""Starts several workers of one training on this machine, and starts again those that are lost.

    python -m training.local_workers --workers=2 -- --config=default --workdir=runs/two \
        --config.data.dir=tfrecords --config.source='watermark:canvas=mark.png'

What follows -- are the flags of `training.train`. Each worker is a process of its own, as on machines of their own:
they speak over TCP, on free ports of the loopback interface.

A worker that is killed ends the operation that all were in; the others then end too, with exit code 75, and all are
started again: they go on at the newest checkpoint. So are all when one of them gets SIGTERM; when this command gets it,
they save and the job ends. A worker that ends with an error of its own ends the job.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from absl import flags, logging

from common import child_process, command_line
from common.command_line import UserError
from common.stopping import stop_asked

_WORKERS = flags.DEFINE_integer("workers", 2, "Processes to start.", 1)
_RESTARTS = flags.DEFINE_integer("max_restarts", 10, "Give up when so many workers were lost.", 0)

_LOST_PEER = 75  # training.distributed.workers.LOST_PEER; not imported, for it would load TensorFlow
_POLL_SECONDS = 0.2


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _start(arguments: Sequence[str], addresses: Sequence[str], index: int) -> subprocess.Popen:
    described = {"cluster": {"worker": list(addresses)}, "task": {"type": "worker", "index": index}}
    environment = {**os.environ, "TF_CONFIG": json.dumps(described)}
    command = [sys.executable, "-m", "training.train", "--strategy=multi_worker", *arguments]
    return child_process.start(command, env=environment)


def run_workers(arguments: Sequence[str], workers: int, max_restarts: int, stop: threading.Event) -> int:
    """Runs a job to its end.

    Args:
      arguments: flags of `training.train`.
      workers: processes.
      max_restarts: lost workers that are started again.
      stop: set from outside to have the workers save and end.

    Returns:
      0, or the exit code of the worker that ended the job.

    Raises:
      UserError: more workers were lost than may be.
    """
    addresses = [f"127.0.0.1:{port}" for port in _free_ports(workers)]
    running = {index: _start(arguments, addresses, index) for index in range(workers)}
    restarts, stopping = 0, False
    try:
        while running:
            time.sleep(_POLL_SECONDS)
            if stop.is_set():
                for process in running.values():
                    process.send_signal(signal.SIGTERM)
                stopping = True
                stop.clear()
            for index, process in list(running.items()):
                code = process.poll()
                if code is None:
                    continue
                del running[index]
                if code == 0 or (stopping and code == _LOST_PEER):
                    continue
                if code > 0 and code != _LOST_PEER:
                    return code
                if code < 0:
                    restarts += 1
                    if restarts > max_restarts:
                        raise UserError(f"worker {index} was lost, the {restarts}th; see --max_restarts")
                    logging.warning("worker %d was lost (signal %d); it is started again", index, -code)
                running[index] = _start(arguments, addresses, index)
        return 0
    finally:
        for process in running.values():
            process.kill()
            process.wait()


def main(argv: Sequence[str]) -> int:
    """Starts the workers."""
    return run_workers(argv[1:], _WORKERS.value, _RESTARTS.value, stop_asked())


def run() -> None:
    """Entry point of the console script."""
    command_line.run(main)


if __name__ == "__main__":
    run()
