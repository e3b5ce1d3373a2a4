"""The private quantile: what its bits cost, and where the bound goes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gxdistill.federated import adaptive


def test_update_and_bit_together_cost_what_the_accountant_is_told():
    """The Gaussian mechanism on both at once has the sensitivity of their scaled pair."""
    noise, bit_noise = 1.3, 2.0
    update = adaptive.update_noise(noise, bit_noise)
    pair = np.array([1 / update, 0.5 / bit_noise])  # Largest change, in standard deviations.
    np.testing.assert_allclose(np.linalg.norm(pair), 1 / noise, rtol=1e-12)
    assert update > noise


def test_without_noise_there_is_none_to_share():
    assert adaptive.update_noise(0.0, 5.0) == 0


def test_bits_that_alone_cost_more_are_refused():
    with pytest.raises(ValueError, match=r"`bit_noise` is 0\.5.*Raise it above 0\.65"):
        adaptive.update_noise(1.3, 0.5)


@pytest.mark.parametrize("quantile", [0.25, 0.8])
def test_the_bound_goes_to_the_quantile_in_spite_of_noise(quantile):
    rng = np.random.default_rng(0)
    norms = rng.lognormal(1.0, 0.5, size=200)
    rule = adaptive.AdaptiveBound(quantile=quantile, rate=0.1, bit_noise=1.0)
    log_bound, seen = jnp.float32(0.0), []
    for step in range(200):
        noise = rule.bit_noise * rng.normal(size=len(norms))
        bits = jax.vmap(adaptive.site_bit, (0, None, 0))(norms, jnp.exp(log_bound), noise)
        log_bound = adaptive.next_log_bound(log_bound, bits.mean(), rule)
        seen += [float(jnp.exp(log_bound))] if step >= 120 else []
    low, high = np.quantile(norms, [quantile - 0.07, quantile + 0.07])
    assert low <= np.mean(seen) <= high


@pytest.mark.parametrize("field", ["quantile", "rate", "bit_noise"])
def test_numbers_without_a_meaning_are_refused(field):
    with pytest.raises(ValueError, match=f"`{field}` is -1"):
        adaptive.AdaptiveBound(**{field: -1})
