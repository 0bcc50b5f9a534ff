"""Progress of the Beam job, watched from outside: it works whatever process or machine writes the shards."""

import contextlib
import threading
import time
from typing import Any

from apache_beam.io.filesystem import BeamIOError
from tqdm import tqdm

from configs import storage
from preprocessing import schema
from preprocessing.shards import JobFolders

_POLL_SECONDS = 0.5
_POLL_SHARE = 20  # pauses this many times as long as a look takes


class ShardProgress:
    """A bar over the bytes of the shards, staged or published, shown while the `with` block runs.

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
        pause = _POLL_SECONDS
        while not self._done.wait(pause):
            started = time.monotonic()
            with contextlib.suppress(OSError, BeamIOError):  # renamed while the folder was read; the next look will do
                self._show(self._written())
            # Half a million files, or an object store, take a while to list.
            pause = max(_POLL_SECONDS, _POLL_SHARE * (time.monotonic() - started))

    def _written(self) -> int:
        staged = self._folders.staged_shard("")[len(storage.join(self._folders.output, "")) :]
        return sum(
            file.size
            for file in storage.list_files(self._folders.output)
            if schema.is_shard_name(file.name) or file.name.startswith(staged)
        )

    def _show(self, written: int) -> None:
        # On its way from one folder to the other a shard may be seen in neither: the bar only ever goes up.
        self._bar.update(max(0, min(written, self._bar.total) - self._bar.n))
