"""Progress of batch restoration, watched from outside: it works whatever process or machine restores."""

from __future__ import annotations

import threading
import time
from typing import Any

from tqdm import tqdm

from configs import storage
from serving import batch_job

_POLL_SECONDS = 2.0
# Listing a million files takes a while: a twentieth of the time at most goes into it.
_POLL_FACTOR = 20


class PictureProgress:
    """A bar over the pictures that are written into a folder, shown while the `with` block runs."""

    def __init__(self, output: str, total: int, newest: float, show: bool) -> None:
        """Prepares the bar.

        Args:
          output: the folder.
          total: pictures to come.
          newest: when the newest file that was there before was written.
          show: false for no bar; there is none either where stderr is no terminal.
        """
        self._output, self._newest = output, newest
        self._bar = tqdm(total=total, unit="image", disable=not show or None)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        if not self._bar.disable:
            self._thread.start()

    def __exit__(self, failure: Any, *unused: Any) -> None:
        self._done.set()
        if not self._bar.disable:
            self._thread.join()
            if failure is None:
                self._show(self._bar.total)
        self._bar.close()

    def _watch(self) -> None:
        pause = _POLL_SECONDS
        while not self._done.wait(pause):
            started = time.monotonic()
            try:
                files = storage.list_files(self._output)
                written = sum(file.updated > self._newest and not batch_job.is_leftover(file.name) for file in files)
            except Exception:  # a file was renamed while the folder was read; the next look will do
                continue
            self._show(written)
            pause = max(_POLL_SECONDS, _POLL_FACTOR * (time.monotonic() - started))

    def _show(self, written: int) -> None:
        self._bar.update(max(0, min(written, self._bar.total) - self._bar.n))
