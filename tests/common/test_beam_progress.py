"""The bar follows what a job has written, and outlives looks that fail."""

import io
import threading
import time

import pytest

from common.beam import progress


@pytest.mark.parametrize("fails", [True, False])
def test_the_bar_shows_what_was_written_and_is_full_at_the_end_of_a_job_that_went_well(monkeypatch, fails):
    monkeypatch.setattr(progress, "_POLL_SECONDS", 0.001)
    looks = iter([1, OSError("renamed meanwhile"), 2, 1, 2])

    def written():
        look = next(looks, 2)
        if isinstance(look, Exception):
            raise look
        return look

    bar = progress.WatchedProgress(written, 3, file=io.StringIO())
    try:
        with bar:
            while bar._bar.n < 2:
                time.sleep(0.001)
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    assert bar._bar.n == (2 if fails else 3)


@pytest.mark.parametrize("shown", [True, False])
def test_without_a_bar_nobody_looks(monkeypatch, shown):
    monkeypatch.setattr(progress, "_POLL_SECONDS", 0.001)
    looked = threading.Event()
    bar = progress.WatchedProgress(lambda: looked.set() or 1, 3, file=io.StringIO(), disable=not shown)
    with bar:
        assert looked.wait(60 if shown else 0.2) == shown
