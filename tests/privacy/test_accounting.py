import importlib.metadata
import math

import numpy as np
import pytest
import scipy.special
import scipy.stats

from gxdistill.errors import UserError
from gxdistill.privacy import accounting
from gxdistill.privacy.accounting import Term, epsilon, most, noise_for


def _by_renyi(q, sigma, count, delta):
    """Epsilon of Poisson-sampled Gaussian noise by Renyi divergences and the classical conversion.

    Mironov et al. 2019, https://arxiv.org/abs/1908.10530, equation 1 of whole orders; the
    conversion of Mironov 2017, https://arxiv.org/abs/1702.07476, proposition 3.
    """
    values = []
    for order in range(2, 256):
        k = np.arange(order + 1)
        choose = scipy.special.gammaln([order + 1])[0] - (
            scipy.special.gammaln(k + 1) + scipy.special.gammaln(order - k + 1)
        )
        logs = choose + k * math.log(q) + (order - k) * math.log1p(-q) + (k * k - k) / 2 / sigma**2
        divergence = scipy.special.logsumexp(logs) / (order - 1)
        values.append(count * divergence + math.log(1 / delta) / (order - 1))
    return min(values)


@pytest.mark.parametrize(
    ("q", "sigma", "count", "published", "ours"),
    [
        # TensorFlow Privacy's table for MNIST, batches of 256 of 60,000, delta 1e-5.
        (256 / 60_000, 1.3, 15 * 60_000 // 256, 1.19, None),
        (256 / 60_000, 1.1, 60 * 60_000 // 256, 3.01, None),
        (256 / 60_000, 0.7, 45 * 60_000 // 256, 7.10, None),
        (0.01, 4.0, 10_000, 1.26, 0.947),  # Abadi et al. 2016, figure 2.
    ],
)
def test_published_values_come_back_by_the_classical_conversion_and_ours_is_tighter(
    q, sigma, count, published, ours
):
    assert _by_renyi(q, sigma, count, 1e-5) == pytest.approx(published, abs=0.03)
    value = epsilon((Term("sampled_gaussian", sigma, q, count),), 1e-5)
    assert 0.6 * published < value < published
    if ours is not None:
        assert value == pytest.approx(ours, abs=2e-3)


def _exact_delta(value, sigma):
    """Of one Gaussian release: Balle and Wang 2018, https://arxiv.org/abs/1805.06530, theorem 8."""
    cdf = scipy.stats.norm.cdf
    first, second = 1 / (2 * sigma) - value * sigma, -1 / (2 * sigma) - value * sigma
    return cdf(first) - math.exp(value) * cdf(second)


@pytest.mark.parametrize("sigma", [0.8, 2.0, 7.0])
def test_one_gaussian_release_costs_what_the_formula_says(sigma):
    value = epsilon((Term("gaussian", sigma),), 1e-4)
    assert _exact_delta(value, sigma) == pytest.approx(1e-4, rel=2e-3)


def test_many_gaussian_releases_are_one_with_less_noise():
    many = epsilon((Term("gaussian", 12.0, 1.0, 9),), 1e-4)
    assert many == pytest.approx(epsilon((Term("gaussian", 4.0),), 1e-4), rel=1e-3)
    both = epsilon((Term("gaussian", 5.0), Term("gaussian", 20 / 3)), 1e-4)
    assert both == pytest.approx(epsilon((Term("gaussian", 4.0),), 1e-4), rel=1e-3)


def test_one_laplace_release_costs_what_the_formula_says():
    # The losses of Laplace noise of scale b: delta = 1 - exp((epsilon - 1 / b) / 2).
    value = epsilon((Term("laplace", 2.0),), 0.05)
    assert value == pytest.approx(0.5 + 2 * math.log(1 - 0.05), abs=1e-3)


def test_nothing_costs_nothing_and_no_noise_has_no_bound():
    assert epsilon((), 1e-5) == 0
    assert epsilon((Term("gaussian", 0.05),), 1e-5) == math.inf
    assert epsilon((Term("sampled_gaussian", 0.5, 0.5, 10**9),), 1e-5) == math.inf


@pytest.mark.parametrize(
    ("target", "delta", "term", "published"),
    [
        (1.0, 1e-3, Term("sampled_gaussian", 1.0, 0.1, 500), 5.84),
    ],
)
def test_the_least_noise_fits_and_a_little_less_does_not(target, delta, term, published):
    noise = noise_for(target, delta, term)
    assert noise == pytest.approx(published, rel=1e-3)
    kept, less = (Term(term.mechanism, n, *_rest(term)) for n in (noise, noise * 0.999))
    assert epsilon((kept,), delta) <= target < epsilon((less,), delta)


def _rest(term):
    return term.sampling_probability, term.count


def test_what_is_beside_asks_for_more_noise():
    beside = (Term("gaussian", 4.0),)
    noise = noise_for(1.0, 1e-3, Term("gaussian", 1.0), beside)
    # Two Gaussian releases are one: 1 / sigma^2 adds up.
    assert noise == pytest.approx((2.575**-2 - 4**-2) ** -0.5, rel=2e-3)
    assert noise_for(0.2, 1e-3, Term("gaussian", 1.0), beside) is None


def test_the_most_releases_fit_and_one_more_does_not():
    term, beside = Term("gaussian", 10.0), (Term("gaussian", 8.0),)
    count = most(1.0, 1e-3, term, beside)
    assert count == math.floor((2.575**-2 - 8**-2) * 100)
    assert epsilon((*beside, Term("gaussian", 10.0, 1.0, count)), 1e-3) <= 1
    assert epsilon((*beside, Term("gaussian", 10.0, 1.0, count + 1)), 1e-3) > 1


def test_the_installed_versions_are_those_that_were_seen_to_work():
    """Beside a newer attrs, pip goes back to dp-accounting 0.0.2 without a word."""
    versions = {
        name: tuple(map(int, importlib.metadata.version(name).split(".")[:2]))
        for name in ("dp-accounting", "jax-privacy", "attrs")
    }
    assert (0, 6) <= versions["dp-accounting"] < (1,)
    assert (2,) <= versions["jax-privacy"] < (3,)
    assert versions["attrs"] < (24,)


def test_an_accountant_that_is_missing_or_too_old_is_said(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(importlib.metadata, "version", lambda _: "0.0.2")
        with pytest.raises(UserError, match=r"is 0\.0\.2; at least 0\.6 .*pip install"):
            epsilon((Term("gaussian", 1.2345),), 1e-5)

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(UserError, match=r"needs dp-accounting. Install .*pip install"):
        accounting.epsilon((Term("gaussian", 1.2346),), 1e-5)
