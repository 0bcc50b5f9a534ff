"""Progress of a Beam job, watched from outside: it works whatever process or machine does the work."""

import threading
import time
from typing import Any, Callable

from tqdm import tqdm

_POLL_SECONDS = 0.5
# A look may take a while, at a million files or an object store: a twentieth of the time at most goes into it.
_POLL_SHARE = 20


class WatchedProgress:
    """A bar that shows what the job has written, while the `with` block runs."""

    def __init__(self, written: Callable[[], int], total: int, **bar: Any) -> None:
        """Prepares the bar.

        Args:
          written: looks at the output; an error of it is passed over, for files are renamed while they are listed.
          total: what `written` returns at the end.
          **bar: as for tqdm.
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
            except Exception:  # each file system has errors of its own, and the next look will do
                continue
            finally:
                pause = max(_POLL_SECONDS, _POLL_SHARE * (time.monotonic() - started))

    def _show(self, written: int) -> None:
        # On its way from one folder to the other a file may be seen in neither: the bar only ever goes up.
        self._bar.update(max(0, min(written, self._bar.total) - self._bar.n))
