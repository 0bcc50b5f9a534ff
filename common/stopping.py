"""Graceful shutdown on SIGTERM and Ctrl-C."""

from __future__ import annotations

import signal
import threading


def stop_asked() -> threading.Event:
    """Installs handlers so that SIGTERM and Ctrl-C set the returned event instead of ending the process."""
    asked = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked.set())
    return asked
