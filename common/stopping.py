"""Ending in good order when the process is asked to."""

from __future__ import annotations

import signal
import threading


def stop_asked() -> threading.Event:
    """From now on SIGTERM and Ctrl-C do not end the process, but set the event that is returned."""
    asked = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked.set())
    return asked
