import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from gxdistill import package
from gxdistill.errors import UserError
from gxdistill.privacy import ledger as ledgers
from gxdistill.privacy.events import Event, sampled_gaussian
from gxdistill.privacy.ledger import (
    BudgetError,
    Ledger,
    calibrate,
    gaussian_release,
    laplace_release,
)
from gxdistill.privacy.sampling import Draws, PatientSampler
from tests.packages import LEDGER

KEY = jax.random.key(11)
SAMPLER = PatientSampler(50, 0.1)
EMPTY = Ledger(delta=1e-3, budget=1.0)


def _booked(ledger, first, count, *, key=KEY, noise=5.84):
    draws = SAMPLER.draws(key, first, count)
    event = sampled_gaussian(draws, "steps", sensitivity=1.0, noise_multiplier=noise)
    return ledger.book(event, draws)


def test_releases_of_one_kind_are_one_event():
    ledger = _booked(_booked(EMPTY, 0, 10), 10, 5).book(Event("tau", "gaussian", 1.0, 20.0))
    assert [(event.what, event.count) for event in ledger.events] == [("steps", 15), ("tau", 1)]
    assert ledger.releases == 16
    assert EMPTY.events == ()


def test_a_budget_of_500_steps_allows_500_steps():
    """Epsilon 1 at delta 1e-3 of 500 steps with q = .1 needs 5.84 of noise."""
    ledger = EMPTY
    for first in range(0, 500, 20):
        ledger = _booked(ledger, first, 20)
    assert 0.99 < ledger.epsilon() <= 1
    with pytest.raises(BudgetError, match=r"Releasing steps \(20 times\) would .* budget of 1"):
        _booked(ledger, 500, 20)
    assert ledger.releases == 500


def test_an_event_that_breaks_the_budget_is_refused_before_any_noise_is_drawn(monkeypatch):
    monkeypatch.setattr(ledgers, "add_noise", lambda *_: pytest.fail("was released"))
    for release in (gaussian_release, laplace_release):
        with pytest.raises(BudgetError):
            release(
                KEY, jnp.ones(3), sensitivity=1.0, noise_multiplier=0.8, ledger=EMPTY, what="mean"
            )


@pytest.mark.parametrize(
    ("draws", "reason"),
    [
        (None, "counts on Poisson samples of patients, and the batch was not drawn so"),
        (np.arange(3), "was not drawn so"),
        (SAMPLER.draws(KEY, 0, 3), "is booked for 2 samples .* and 3 of 0.1 were drawn"),
        (PatientSampler(50, 0.2).draws(KEY, 0, 2), "and 2 of 0.2 were drawn"),
        (SAMPLER.draws(jax.random.key(12), 0, 2), "or by another key"),
        (SAMPLER.draws(KEY, 1, 2), "the next is number 1: some would be lost"),
    ],
)
def test_a_batch_that_was_not_drawn_as_booked_is_refused(draws, reason):
    event = sampled_gaussian(SAMPLER.draws(KEY, 0, 2), "s", sensitivity=1.0, noise_multiplier=9.0)
    with pytest.raises(UserError, match=reason):
        EMPTY.book(event, draws)


def test_a_sample_is_booked_once():
    ledger = _booked(Ledger(delta=1e-3), 0, 4)
    with pytest.raises(UserError, match=r"for 4 samples, .* number 0: some would be booked twice"):
        _booked(ledger, 0, 4)
    with pytest.raises(UserError, match="number 6: some would be lost"):
        _booked(ledger, 6, 2)
    # Other noise on the same stream goes on counting.
    assert _booked(ledger, 4, 2, noise=7.0).drawn(SAMPLER.draws(KEY, 0, 1).stream) == 6
    assert _booked(ledger, 0, 4, key=jax.random.key(12)).releases == 8


@pytest.mark.parametrize("release", [gaussian_release, laplace_release])
def test_noise_is_of_its_law(release):
    name = {gaussian_release: "norm", laplace_release: "laplace"}[release]
    value = {"a": jnp.full(3000, 2.0), "b": jnp.full((50, 40), -1.0)}
    noisy, ledger = release(
        KEY,
        value,
        sensitivity=0.5,
        noise_multiplier=8.0,
        ledger=Ledger(delta=1e-3),
        what="means",
    )
    noise = np.concatenate([np.ravel(noisy[n] - value[n]) for n in value])
    assert scipy.stats.kstest(noise, name, args=(0, 4.0)).pvalue > 1e-3
    assert scipy.stats.kstest(noise, name, args=(0, 4.6)).pvalue < 1e-3  # The test has power.
    (event,) = ledger.events
    assert (event.sensitivity, event.noise_multiplier, event.count) == (0.5, 8.0, 1)


def test_no_two_releases_of_a_ledger_share_their_noise():
    ledger, seen = Ledger(delta=1e-3), []
    for _ in range(5):
        noisy, ledger = gaussian_release(
            KEY, jnp.zeros(4), sensitivity=1.0, noise_multiplier=9.0, ledger=ledger, what="zeros"
        )
        seen.append(np.asarray(noisy))
    assert len({row.tobytes() for row in seen}) == 5
    assert abs(np.corrcoef(seen)[np.triu_indices(5, 1)]).max() < 1
    # The same release, made again after a kill, is the same: nothing more is told.
    again, _ = gaussian_release(
        KEY,
        jnp.zeros(4),
        sensitivity=1.0,
        noise_multiplier=9.0,
        ledger=Ledger(delta=1e-3),
        what="zeros",
    )
    np.testing.assert_array_equal(again, seen[0])


def test_a_statement_names_epsilon_delta_unit_adjacency_and_what_is_left_out():
    ledger = EMPTY.leave_uncovered("the settings").leave_uncovered("the settings")
    assert ledger.uncovered == ("the settings",)
    ledger = ledger.book(Event("means", "gaussian", 1.0, calibrate(1.0, 1e-3)))
    assert ledger.statement() == (
        "epsilon 1 at delta 0.001, unit: one patient, adjacency: add or remove one; not covered: "
        "the settings"
    )


def test_a_ledger_comes_back_from_json_and_from_a_manifest():
    ledger = _booked(EMPTY.leave_uncovered("x"), 0, 3).book(Event("tau", "laplace", 2.0, 30.0))
    assert Ledger.from_dict(json.loads(json.dumps(ledger.to_dict()))) == ledger
    assert Ledger.from_dict(package.to_json(ledger.record())) == ledger
    unbounded = Ledger(delta=1e-5)
    assert Ledger.from_dict(json.loads(json.dumps(unbounded.to_dict()))) == unbounded
    assert unbounded.to_dict()["budget"] is None


def test_a_claimed_epsilon_is_not_believed():
    """300 steps at q = .2 with noise 1.81 cost 7.986; a ledger may claim what it likes."""
    for claimed in (0.001, 50.0, None):
        read = Ledger.from_dict({**LEDGER, "epsilon": claimed})
        assert read.epsilon() == pytest.approx(7.986, abs=2e-3)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"events": {}}, "not a list"),
        ({"events": LEDGER["events"] * 101}, "more than 100"),
        ({"uncovered": ["x"] * 101}, "more than 100"),
        ({"uncovered": "all"}, "not a list"),
        ({"uncovered": ["a\nb"]}, "not a line"),
        ({"uncovered": ["a" * 201]}, "not a line"),
        ({"unit": "hospital"}, "`unit` is 'hospital'"),
        ({"adjacency": "none"}, "`adjacency` is 'none'"),
        ({"delta": 0}, "`delta` is 0"),
        ({"delta": 1.0}, "`delta` is 1.0"),
        ({"delta": math.nan}, "out of all bounds"),
        ({"delta": True}, "a number is missing"),
        ({"budget": -1.0}, "`budget` is -1.0"),
    ],
)
def test_a_strangers_ledger_is_bounded(change, reason):
    with pytest.raises(UserError, match=f"This is no ledger: .*{reason}"):
        Ledger.from_dict({**LEDGER, **change})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"count": 0}, "a count"),
        ({"count": 2**40}, "a count"),
        ({"count": 2.0}, "a count"),
        ({"stream": "x" * 16}, "hexadecimal"),
        ({"stream": ""}, "names its stream"),
        ({"noise_multiplier": 0.0}, "`noise_multiplier` is 0"),
        ({"noise_multiplier": 1e300}, "out of all bounds"),
        ({"sampling_probability": 1.5}, "`sampling_probability` is 1.5"),
        ({"mechanism": "none"}, "`mechanism` is 'none'"),
        ({"unit": "image"}, "hides one image, and the ledger is of patients"),
        ({"what": 3}, "not a line"),
        ({"more": 1}, "more"),
    ],
)
def test_a_strangers_event_is_bounded(change, reason):
    event = {**LEDGER["events"][0], **change}
    with pytest.raises(UserError, match=f"This is no ledger: .*{reason}"):
        Ledger.from_dict({**LEDGER, "events": [event]})


def test_what_is_missing_is_named():
    for name in LEDGER.keys() - {"epsilon", "conversion"}:
        with pytest.raises(UserError, match=f"This is no ledger: '{name}'"):
            Ledger.from_dict({k: v for k, v in LEDGER.items() if k != name})
    with pytest.raises(UserError, match="not a table"):
        Ledger.from_dict([])


def test_an_event_of_a_sample_cannot_be_passed_off_as_another():
    event = Event(**LEDGER["events"][0])
    with pytest.raises(ValueError, match="names its stream"):
        dataclasses.replace(event, mechanism="gaussian")
    with pytest.raises(ValueError, match="only a sampled_gaussian one is of a sample"):
        dataclasses.replace(event, mechanism="gaussian", stream="")


def test_noise_that_no_budget_allows_is_said():
    beside = (Event("all", "gaussian", 1.0, 1.0),)
    with pytest.raises(UserError, match=r"No noise fits 5 releases into epsilon 0\.5"):
        calibrate(0.5, 1e-3, count=5, beside=beside)
    assert isinstance(SAMPLER.draws(KEY, 0, 1), Draws)
