"""A round is timed beside as many central steps; the ratios are of what was timed in turn."""

import time

import pytest

from benchmarks import federated_round
from tests import toy


def _busy(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_ratios_are_of_cpu_seconds_in_turn():
    calls = {
        "central": lambda: _busy(0.01),
        "round": lambda: _busy(0.02),
        "private_round": lambda: _busy(0.03),
    }
    told = federated_round.measure(calls, 3)
    assert 1.6 < told["round_ratio"] < 2.4
    assert 1.2 < told["private_ratio"] < 1.8
    assert 0.009 < told["central_cpu_s"] < 0.02


@pytest.mark.slow
def test_the_programs_are_of_as_many_samples_and_run():
    with toy.quick_compilation():
        job = federated_round.make_job(2, 1, width=2, depth=1, crop=16)
        calls = federated_round.programs(job)
        (state, losses), (after, _) = calls["central"](), calls["round"]()
    assert len(losses) == 2  # Two sites of one step each.
    assert int(state.step) == 2
    assert int(after.step) == 1
