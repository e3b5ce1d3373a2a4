"""Sums over sites in each way, and robust means beside NumPy's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gxdistill.federated import aggregation


def _of_site(site):
    x = site.astype(jnp.float32)
    return {"a": jnp.full((2, 3), x), "b": x**2}


def test_a_sum_in_sequence_is_the_sum():
    total = jax.jit(lambda: aggregation.in_sequence(_of_site, 5))()
    np.testing.assert_array_equal(total["a"], np.full((2, 3), 10.0))
    assert float(total["b"]) == 30


def test_trimmed_mean_is_scipys():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(11, 4, 2)).astype(np.float32)
    joined = np.ones(11, bool)
    joined[[2, 7, 8]] = False
    values[2] = np.nan  # Of a site that took no part: as good as nothing.
    told = aggregation.trimmed_mean(values, jnp.asarray(joined), 0.2)
    expected = stats.trim_mean(values[joined], 0.2, axis=0)
    np.testing.assert_allclose(told, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 5, 6])
def test_median_is_numpys(count):
    rng = np.random.default_rng(count)
    values = rng.normal(size=(8, 3)).astype(np.float32)
    joined = np.arange(8) < count
    told = aggregation.median(values, jnp.asarray(joined))
    np.testing.assert_allclose(told, np.median(values[joined], axis=0), rtol=1e-6)


def test_robust_means_withstand_what_one_site_makes_up():
    honest = np.random.default_rng(0).normal(1.0, 0.1, size=(9, 5))
    values = np.vstack([honest, np.full((1, 5), 1e9)]).astype(np.float32)
    joined = jnp.ones(10, bool)
    for told in (
        aggregation.median(values, joined),
        aggregation.trimmed_mean(values, joined, 0.1),
    ):
        assert (np.abs(told - 1) < 0.3).all()


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r"`share` is 0\.5"):
        aggregation.trimmed_mean(jnp.ones((2, 1)), jnp.ones(2, bool), 0.5)
    with pytest.raises(ValueError, match="`server` is 'other'"):
        aggregation.server_optimizer("other", 1.0)
