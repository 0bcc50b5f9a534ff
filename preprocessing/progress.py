"""Progress of the Beam job, watched from outside: it works whatever process or machine writes the shards."""

import threading
from typing import Any

from apache_beam.io.filesystem import BeamIOError
from tqdm import tqdm

from configs import storage
from preprocessing.shards import JobFolders

_POLL_SECONDS = 0.5


class ShardProgress:
    """A bar over the bytes of the staged shards, shown while the `with` block runs.

    On a disk a shard shows while it grows, on object storage when it is complete.
    """

    def __init__(self, folders: JobFolders, total_bytes: int) -> None:
        self._folders = folders
        self._bar = tqdm(total=total_bytes, desc="shards", unit="B", unit_scale=True)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, failure: Any, *unused: Any) -> None:
        self._done.set()
        self._thread.join()
        if failure is None:
            self._show(self._bar.total)
        self._bar.close()

    def _watch(self) -> None:
        while not self._done.wait(_POLL_SECONDS):
            try:
                self._show(sum(file.size for file in storage.list_files(self._folders.staged)))
            except (OSError, BeamIOError):
                continue  # a file was renamed while the folder was read; the next look will do

    def _show(self, written: int) -> None:
        # Published shards leave the folder: the bar only ever goes up.
        self._bar.update(max(0, min(written, self._bar.total) - self._bar.n))
