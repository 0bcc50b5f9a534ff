"""A Dask scheduler and workers, each a process of its own, as `dask scheduler` and `dask worker` start them."""

import contextlib
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest


@contextlib.contextmanager
def dask_cluster(folder, workers=2):
    """Starts one; ends it at the end of the `with` block.

    Args:
      folder: for the scheduler's file and the logs.
      workers: processes of one thread each. They have no nanny: one that is killed stays dead.

    Yields:
      `address` of the scheduler, `workers`, a list of Popen, and `flags`, Beam's, that run a pipeline on it.
    """
    distributed = pytest.importorskip("distributed", reason="no Dask; pip install 'cleanplate[dask]'")
    folder.mkdir(parents=True, exist_ok=True)
    scheduler_file = folder / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    with contextlib.ExitStack() as stack:

        def start(name, *arguments):
            log = stack.enter_context(open(folder / f"{name}.log", "w"))
            process = subprocess.Popen([*dask, *arguments], stdout=log, stderr=log)
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        start(
            "scheduler",
            "scheduler",
            "--host=127.0.0.1",
            "--port=0",
            "--no-dashboard",
            f"--scheduler-file={scheduler_file}",
        )
        local = ["--nthreads=1", "--no-nanny", "--no-dashboard", f"--local-directory={folder}"]
        while not scheduler_file.exists():
            time.sleep(0.05)
        running = [
            start(f"worker-{index}", "worker", f"--scheduler-file={scheduler_file}", *local) for index in range(workers)
        ]
        with distributed.Client(scheduler_file=str(scheduler_file)) as client:
            client.wait_for_workers(workers, timeout=60)
            address = client.scheduler.address
        flags = ["--runner=apache_beam.runners.dask.dask_runner.DaskRunner", f"--dask_client_address={address}"]
        yield SimpleNamespace(address=address, workers=running, flags=flags)
