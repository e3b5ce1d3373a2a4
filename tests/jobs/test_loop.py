import itertools
import os
import signal
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gxdistill.errors import UserError
from gxdistill.jobs.devices import Stepper
from gxdistill.jobs.history import History
from gxdistill.jobs.loop import Run, Schedule
from gxdistill.jobs.problem import BatchSource
from gxdistill.runtime.interrupts import Terminated
from gxdistill.storage import checkpoint
from gxdistill.training import steps

_TARGET = jnp.array([1.0, -2.0])


def _gradient(learned, key, batch):
    """Of the distance to a target, under noise that shows which key was used."""
    noisy = lambda x: jnp.sum((x - batch - jax.random.normal(key, (2,))) ** 2)
    return jax.value_and_grad(noisy)(learned)


def _source(*, reusable=True, target=_TARGET):
    def draw(feed, key):
        return feed + 0.1 * jax.random.normal(key, (2,))

    return BatchSource(draw, lambda *_: itertools.repeat(target), reusable)


LOOP = steps.loop(_gradient, optax.sgd(0.1))


def _first():
    return LOOP.init(jnp.zeros(2), jax.random.key(5))


def _run(folder, said=None, *, source=None, count=12, **changes):
    stepper = Stepper(LOOP, source or _source(), 2)
    log = (lambda _: None) if said is None else said.append
    history = History(folder / "history.jsonl")
    schedule = Schedule(count, checkpoint_every=4, evaluate_every=6)
    given = {"history": history, "measure": lambda learned, _: {"sum": float(learned.sum())}}
    return Run("testing", stepper, schedule, folder / "states", log, **{**given, **changes})


def _interrupt_at(monkeypatch, error, at):
    save = checkpoint.save

    def save_and_raise(folder, step, *args, **options):
        save(folder, step, *args, **options)
        if step == at:
            raise error

    monkeypatch.setattr(checkpoint, "save", save_and_raise)


def _by_hand(count):
    state, keys = np.zeros(2), jax.random.key(5)
    draws = jax.random.fold_in(keys, 2**32 - 1)
    for t in range(count):
        noise = jax.random.normal(jax.random.fold_in(keys, t), (2,))
        batch = _TARGET + 0.1 * jax.random.normal(jax.random.fold_in(draws, t), (2,))
        state = state - 0.1 * 2 * (state - np.asarray(batch + noise))
    return state


@pytest.mark.parametrize("reusable", [True, False])
def test_a_run_is_gradient_descent_by_hand(tmp_path, reusable):
    state = _run(tmp_path, source=_source(reusable=reusable))(_first())
    assert int(state.step) == 12
    np.testing.assert_allclose(state.learned, _by_hand(12), rtol=1e-5)


def test_a_run_that_is_interrupted_after_each_checkpoint_ends_as_an_uninterrupted_one(
    tmp_path, monkeypatch
):
    whole = _run(tmp_path / "whole")(_first())
    for at in (4, 8, 12):
        with monkeypatch.context() as patch:
            _interrupt_at(patch, KeyboardInterrupt(), at)
            with pytest.raises(KeyboardInterrupt):
                _run(tmp_path / "parts")(_first())
    said = []
    parts = _run(tmp_path / "parts", said)(_first())
    assert said == ["testing: done already"]
    np.testing.assert_array_equal(whole.learned, parts.learned)
    for name in ("whole", "parts"):
        assert History(tmp_path / name / "history.jsonl").last("sum") == whole.learned.sum()
    text = (tmp_path / "whole/history.jsonl").read_bytes()
    assert (tmp_path / "parts/history.jsonl").read_bytes() == text


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)]
)
def test_a_signal_ends_the_run_at_the_next_call_with_a_checkpoint(tmp_path, number, error):
    whole, said = _run(tmp_path / "whole")(_first()), []

    def send(_, step):
        if step == 6:
            os.kill(os.getpid(), number)
        return {}

    before = signal.getsignal(number)
    with pytest.raises(error) as caught:
        _run(tmp_path / "parts", said, measure=send)(_first())
    assert type(caught.value) is error
    assert said[-1] == "testing: stopped at step 6, with a checkpoint"  # No multiple of 4.
    assert signal.getsignal(number) is before
    parts = _run(tmp_path / "parts", said)(_first())
    assert "testing: resuming at step 6" in said
    np.testing.assert_array_equal(whole.learned, parts.learned)


def test_a_second_signal_does_not_wait(tmp_path):
    def send(*_):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1.1)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the second signal should have raised")

    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path, measure=send)(_first())


def test_a_run_in_another_thread_leaves_signals_alone(tmp_path):
    before, states = signal.getsignal(signal.SIGINT), []
    thread = threading.Thread(target=lambda: states.append(_run(tmp_path)(_first())))
    thread.start()
    thread.join()
    assert int(states[0].step) == 12
    assert signal.getsignal(signal.SIGINT) is before


def test_a_checkpoint_of_another_identity_is_no_beginning(tmp_path):
    said = []
    first = _run(tmp_path, identity="a")(_first())
    again = _run(tmp_path, said, identity="a", history=None)(_first())
    assert said == ["testing: done already"]
    np.testing.assert_array_equal(first.learned, again.learned)
    said.clear()
    other = _run(tmp_path, said, identity="b", source=_source(target=-_TARGET))(_first())
    assert "testing: done already" not in said
    assert not np.allclose(first.learned, other.learned)


def test_the_beginning_is_changed_once(tmp_path, monkeypatch):
    begun = []

    def begin(state):
        begun.append(int(state.step))
        return state.replace(learned=state.learned + 1)

    _interrupt_at(monkeypatch, KeyboardInterrupt(), 4)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            _run(tmp_path, begin=begin, count=8 if len(begun) else 4)(_first())
        monkeypatch.undo()
        _interrupt_at(monkeypatch, KeyboardInterrupt(), 8)
    assert begun == [0]


def test_what_diverges_is_told_with_the_way_out(tmp_path):
    advice = "Lower the rate."
    run = _run(tmp_path, source=_source(target=_TARGET * jnp.nan), count=40, advice=advice)
    with pytest.raises(UserError, match=r"last 20 steps, up to step 20, .*finite.*Lower the rate"):
        run(_first())
    few = _run(tmp_path / "few", source=_source(target=_TARGET * jnp.inf), advice=advice)
    with pytest.raises(UserError, match=r"Each of the 12 steps diverged\. Lower the rate"):
        few(_first())
