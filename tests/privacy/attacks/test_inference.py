import numpy as np
import pytest
import scipy.stats

from gxdistill.privacy.attacks import inference


@pytest.mark.parametrize(("count", "total"), [(0, 20), (7, 20), (20, 20)])
def test_shares_have_wilsons_interval(count, total):
    other = scipy.stats.binomtest(count, total).proportion_ci(0.95, "wilson")
    found = inference.wilson(count, total)
    assert found == pytest.approx((count / total, other.low, other.high), abs=1e-12)


def test_the_difference_is_the_published_one():
    # Newcombe 1998, table II: 56/70 - 48/80, method 10.
    found = inference.difference(56, 70, 48, 80)
    assert found == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


def test_the_interval_covers_the_true_difference():
    rng = np.random.default_rng(0)
    pairs = zip(rng.binomial(40, 0.8, 1000), rng.binomial(60, 0.6, 1000), strict=True)
    found = [inference.difference(int(a), 40, int(b), 60) for a, b in pairs]
    assert 0.93 < np.mean([d.low <= 0.2 <= d.high for d in found]) < 0.975


def test_counts_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="3 of 2"):
        inference.difference(3, 2, 1, 2)
