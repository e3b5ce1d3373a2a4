"""Ledgers of runs that are killed: no release is lost, and none is booked twice."""

import itertools
import math
import random
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gxdistill.jobs.devices import Stepper
from gxdistill.jobs.loop import Run, Schedule
from gxdistill.jobs.problem import BatchSource
from gxdistill.privacy.clipping import clipped_sum
from gxdistill.privacy.events import sampled_gaussian
from gxdistill.privacy.ledger import BudgetError, Ledger, add_noise
from gxdistill.privacy.sampling import PatientSampler
from gxdistill.storage import checkpoint
from gxdistill.training import steps
from tests.killing import is_alive, kill, writers

VALUES = jnp.arange(40.0).reshape(20, 2) / 20
SAMPLER = PatientSampler(20, 0.3)
COUNT, EVERY, NOISE = 24, 4, 2.0


def _gradient(learned, key, batch):
    values, present = batch
    total = clipped_sum(learned - values, 1.0, present)
    return jnp.zeros(()), add_noise(jax.random.fold_in(key, 99), total, NOISE) / 6


def _draw(feed, key):
    chosen, present = SAMPLER.draw(key)
    return feed[chosen], present


LOOP = steps.loop(_gradient, optax.sgd(0.1))
STEPPER = Stepper(LOOP, BatchSource(_draw, lambda *_: itertools.repeat(VALUES), True), 2)


def _book(ledger, key, first, count):
    draws = SAMPLER.draws(key, first, count)
    event = sampled_gaussian(draws, "steps", sensitivity=1.0, noise_multiplier=NOISE)
    return ledger.book(event, draws)


def run(folder, budget=math.inf, stepper=STEPPER):
    schedule = Schedule(COUNT, checkpoint_every=EVERY)
    ledger = Ledger(delta=1e-3, budget=budget)
    key = jax.random.key(random.SystemRandom().getrandbits(32))  # Of each start its own.
    job = Run("testing", stepper, schedule, folder, lambda _: None, ledger=ledger, book=_book)
    return job.accounted(LOOP.init(jnp.zeros(2), key))


def _check(state, ledger):
    """The ledger has each step once, and the result is that of the key it was made by, unbroken."""
    assert [(event.what, event.count) for event in ledger.events] == [("steps", COUNT)]
    assert ledger.events[0].stream == SAMPLER.draws(state.key, 0, 1).stream
    learned = jnp.zeros(2)
    for step in range(COUNT):
        batch = _draw(VALUES, jax.random.fold_in(steps.draws_key(state.key), step))
        learned -= 0.1 * _gradient(learned, jax.random.fold_in(state.key, step), batch)[1]
    np.testing.assert_allclose(state.learned, learned, rtol=1e-5)


class _Killed(BaseException):
    """Ends a run as a signal would, that no one can catch."""


class _Mortal:
    """A stepper that dies before or after its n-th call."""

    def __init__(self, after, before_steps):
        self.left, self.before_steps = after, before_steps
        self.mesh, self.steps_per_call, self.stream = None, 2, STEPPER.stream

    def __call__(self, state, feeds):
        self.left -= 1
        if self.left == 0 and self.before_steps:
            raise _Killed
        result = STEPPER(state, feeds)
        if self.left == 0:
            raise _Killed
        return result


def _killed_in_save(monkeypatch, half):
    """Has a checkpoint be cut short, or its process end right after it."""
    fresh = checkpoint.storage.fresh_folder

    def dying(path):
        with fresh(path) as folder:
            if half:
                (folder / "arrays").mkdir()
                raise _Killed
            return folder

    monkeypatch.setattr(checkpoint.storage, "fresh_folder", dying)


@pytest.mark.parametrize("rounds", [4, pytest.param(100, marks=pytest.mark.slow)])
def test_a_run_that_dies_at_any_moment_books_each_step_once(tmp_path, monkeypatch, rounds):
    rng, kills = random.Random(3), 0
    for turn in range(rounds):
        folder = tmp_path / str(turn)
        for _ in range(rng.randint(1, 3)):
            with monkeypatch.context() as patch:
                moment = rng.choice(["before", "after", "half"])
                if moment == "half":
                    _killed_in_save(patch, half=True)
                    stepper = STEPPER
                else:
                    stepper = _Mortal(rng.randint(1, COUNT // 2), moment == "before")
                try:
                    run(folder, stepper=stepper)
                except _Killed:
                    kills += 1
        _check(*run(folder))
        _check(*run(folder))  # Once more, where all is done.
    assert kills >= rounds


_WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.jobs import test_accounts
test_accounts.STEPPER  # Compiled in each process.
def work():
    test_accounts.run(Path({folder!r}))
"""


@pytest.mark.slow
def test_a_process_that_is_killed_books_each_step_once(tmp_path, pytestconfig):
    rng, ended = random.Random(5), 0
    source = _WRITER.format(root=str(pytestconfig.rootpath), folder=str(tmp_path / "run"))
    with writers(source) as start:
        for _ in range(12):
            pid, until = start(), time.monotonic() + rng.uniform(0.2, 3.0)
            while is_alive(pid) and time.monotonic() < until:
                time.sleep(0.01)
            ended += is_alive(pid)
            kill(pid)
    assert ended
    _check(*run(tmp_path / "run"))


def test_a_run_stops_before_the_step_that_would_break_its_budget(tmp_path):
    state, ledger = run(tmp_path / "whole")
    spent = ledger.epsilon()
    part = _book(Ledger(delta=1e-3), state.key, 0, 10).epsilon()
    assert part < spent
    state, ledger = run(tmp_path / "part", budget=part + 1e-6)
    assert int(state.step) == ledger.releases == 10
    assert ledger.epsilon() <= part + 1e-6
    # What was done is kept, and going on is refused again.
    step, _, metadata = checkpoint.restore(tmp_path / "part", LOOP.init(jnp.zeros(2), state.key))
    assert step == 10
    assert Ledger.from_dict(metadata["ledger"]) == ledger
    with pytest.raises(BudgetError, match=r"Releasing steps \(2 times\) would raise epsilon"):
        run(tmp_path / "part", budget=part + 1e-6)


def test_a_budget_that_allows_no_step_is_said_at_once(tmp_path):
    with pytest.raises(BudgetError, match=r"above the budget of 0\.01"):
        run(tmp_path, budget=0.01)
    assert checkpoint.restore(tmp_path, LOOP.init(jnp.zeros(2), jax.random.key(0))) is None
