"""How much of a run is done, and the learning rate that goes with it."""

import numpy as np
import pytest

from common.command_line import UserError
from configs import default
from training import schedule


def _rate(**fields):
    config = default.get_config()
    config.update({"learning_rate": 1e-3, "warmup": 0.1, **fields})
    return schedule.learning_rate(config)


def test_a_budget_of_minutes_ends_the_run_and_the_schedule_with_it():
    assert schedule.progress(10, 1000, 3.0, 4.0) == 0.75
    assert schedule.progress(900, 1000, 1.0, 4.0) == 0.9
    assert schedule.progress(5000, 1000, 1.0, 0.0) == 1.0


def test_the_cosine_rises_then_falls_to_zero():
    rates = [_rate()(done) for done in np.linspace(0, 1, 101)]
    assert rates[10] == pytest.approx(1e-3) and rates[100] == pytest.approx(0.0, abs=1e-12)
    assert all(a < b for a, b in zip(rates[2:10], rates[3:11])) and all(a > b for a, b in zip(rates[10:-1], rates[11:]))
    assert rates[55] == pytest.approx(0.5e-3)


def test_quarters_halve_at_each_quarter_and_a_constant_stays():
    rate = _rate(schedule="quarters", warmup=0.0)
    assert [rate(done) for done in (0.0, 0.24, 0.25, 0.5, 0.74, 0.75, 1.0)] == pytest.approx(
        [1e-3, 1e-3, 5e-4, 2.5e-4, 2.5e-4, 1.25e-4, 1.25e-4]
    )
    assert {_rate(schedule="constant")(done) for done in (0.1, 0.5, 1.0)} == {1e-3}


@pytest.mark.parametrize(("fields", "words"), [({"schedule": "linear"}, "'linear'"), ({"warmup": 1.5}, "warmup=1.5")])
def test_what_is_no_schedule_is_named(fields, words):
    with pytest.raises(UserError, match=words):
        _rate(**fields)
