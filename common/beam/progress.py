"""Progress of a Beam job, measured by its output, so it works for any runner, process or machine."""

import threading
import time
from typing import Any, Callable

from tqdm import tqdm

_POLL_SECONDS = 0.5
# Listing a million files or an object store is slow: wait this many times its duration before the next, so that
# polling takes about a twentieth of the time.
_POLL_SHARE = 20


class WatchedProgress:
    """Shows a progress bar of what the job has written while the `with` block runs."""

    def __init__(self, written: Callable[[], int], total: int, **bar: Any) -> None:
        """Prepares the bar.

        Args:
          written: measures the output. Its errors are ignored, because files may be renamed while they are listed.
          total: what `written` returns once the job is done.
          **bar: arguments of tqdm.
        """
        self._written = written
        self._bar = tqdm(total=total, **bar)
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
                self._show(self._written())
            except Exception:  # each file system has its own errors, and there will be another poll
                continue
            finally:
                pause = max(_POLL_SECONDS, _POLL_SHARE * (time.monotonic() - started))

    def _show(self, written: int) -> None:
        # A file being moved may be seen in neither folder, so never let the bar go down.
        self._bar.update(max(0, min(written, self._bar.total) - self._bar.n))
