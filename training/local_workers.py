r"""Starts several workers of one training run on this machine, and restarts workers that are lost.

    python -m training.local_workers --workers=2 -- --config=default --workdir=runs/two \
        --config.data.dir=tfrecords --config.source='watermark:canvas=mark.png'

The arguments after -- are flags of `training.train`. Each worker is a separate process, as it would be on a separate
machine: workers communicate over TCP, on free ports of the loopback interface.

When a worker is killed, the collective operation fails in all the others and they exit with code 75. All workers are
then restarted and resume from the newest checkpoint. The same happens when one worker gets SIGTERM. When this command
gets SIGTERM, the workers save and the job ends. A worker that fails with an error of its own also ends the job.
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

_LOST_PEER = 75  # training.distributed.workers.LOST_PEER, copied because importing it would load TensorFlow
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
      workers: number of processes.
      max_restarts: maximum number of killed workers that are restarted.
      stop: set by the caller to make the workers save and exit.

    Returns:
      0, or the exit code of the worker that ended the job.

    Raises:
      UserError: more than `max_restarts` workers were killed.
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
