"""What noise costs: beside the published curve, the exact formula, and the budget."""

import math

import jax
import numpy as np
import pytest
from scipy import optimize, stats

from gxdistill.privacy.ledger import Ledger
from gxdistill.tasks.federation import promises, settings
from gxdistill.tasks.federation.training import Sites

SITES = Sites(4, np.ones(4), 10, 34)


def _exact_epsilon(noise, rounds, delta):
    """Of composed Gaussian mechanisms: Balle & Wang 2018, https://arxiv.org/abs/1805.06530."""
    mu = math.sqrt(rounds) / noise

    def excess(epsilon):
        first = stats.norm.cdf(mu / 2 - epsilon / mu)
        log_second = epsilon + stats.norm.logcdf(-mu / 2 - epsilon / mu)
        return first - math.exp(log_second) - delta

    return optimize.brentq(excess, 0, 200)


def test_the_curve_is_the_published_one_and_the_exact_formula():
    told = dict(promises.curve(50, 1e-2))
    assert [f"{told[noise]:.2g}" for noise in (1, 2, 4)] == ["41", "14", "5"]
    assert f"{told[10]:.2g}" == "1.5"
    for noise, epsilon in told.items():
        exact = _exact_epsilon(noise, 50, 1e-2)
        assert exact - 1e-6 <= epsilon <= exact * 1.01


def test_the_curve_names_its_unit():
    text = promises.curve_text(50, 1e-2)
    assert "unit: the site" in text
    assert "patient" not in text
    assert text.splitlines()[2].split() == ["1", "40.6"]


@pytest.mark.slow
def test_a_site_and_a_patient_are_promised_each_in_words_of_their_own():
    chosen = settings.default_config().federation
    chosen.secure = True
    chosen.patient.update(rounds=2, sampling=0.5)
    site = promises.of_site(chosen)
    patient, noise = promises.of_patient(chosen, SITES, jax.random.key(0))
    assert site.account.unit == "site"
    assert "What hides is the site" in site.words
    assert patient.account.unit == "patient"
    assert "What hides is one patient" in patient.words
    assert "masked sums alone" in patient.words
    assert 0.9 * chosen.patient.epsilon < patient.account.epsilon() <= chosen.patient.epsilon
    (event,) = patient.account.events
    assert (event.noise_multiplier, event.count) == (noise, 2)
    assert event.sampling_probability == chosen.patient.sampling


def test_without_masks_the_server_is_said_to_be_trusted():
    chosen = settings.default_config().federation
    chosen.patient.update(rounds=1, noise=2.0)
    patient, _ = promises.of_patient(chosen, SITES, jax.random.key(0))
    assert "from the server, which is trusted" in patient.words


def test_noise_that_is_given_is_booked_whatever_it_costs():
    chosen = settings.default_config().federation
    chosen.patient.update(rounds=1, sampling=1.0, noise=0.7, epsilon=1.0)
    patient, noise = promises.of_patient(chosen, SITES, jax.random.key(0))
    assert noise == 0.7
    exact = _exact_epsilon(0.7, 1, chosen.delta)
    assert exact - 1e-6 <= patient.account.epsilon() <= 1.01 * exact


def test_a_promise_is_of_what_was_booked():
    account = promises.site_account(2.0, 10, 1e-3)
    again = Ledger(1e-3, unit="site")
    for _ in range(10):
        again = again.book(promises.site_account(2.0, 1, 1e-3).events[0])
    assert account.epsilon() == pytest.approx(again.epsilon())
