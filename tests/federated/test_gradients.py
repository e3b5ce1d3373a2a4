"""Gradients that sites share: means beside NumPy's, and noise that adds up to what was asked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gxdistill.federated import gradients
from tests.federated import linear

W = np.array([0.5, -1.0, 2.0], np.float32)


def _of_site(learned, key, feed, site):
    return jax.value_and_grad(linear.loss)(learned, linear.draw_all(feed, site, key))


def test_the_mean_gradient_is_weighted_as_numpy_does():
    x, y = linear.sites(3)
    weights = np.array([5.0, 1.0, 2.0])
    mean = gradients.weighted_gradient(_of_site, weights)
    loss, grads = jax.jit(mean)({"w": W}, jax.random.key(0), (x, y))
    each = [linear.gradient(W, *site) for site in zip(x, y, strict=True)]
    np.testing.assert_allclose(grads["w"], np.average(each, 0, weights), rtol=1e-5)
    losses = [0.5 * np.mean((a @ W - b) ** 2) for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(loss, np.average(losses, 0, weights), rtol=1e-5)


@pytest.mark.parametrize("honest", [4, 3])
def test_the_shared_noise_of_those_counted_on_is_gaussian_of_the_whole_variance(honest):
    """Of 4 sites that all add theirs there is at least as much; of `honest` just as much."""
    noise, bound, expected, size = 1.5, 0.2, 30.0, 5000
    zero = {"w": jnp.zeros(size)}
    gradient = gradients.private_gradient(
        lambda *_: (jnp.zeros(()), zero),
        4,
        noise=noise,
        bound=bound,
        expected=expected,
        honest=honest,
    )
    _, first = gradient(zero, jax.random.key(0), None)
    _, second = gradient(zero, jax.random.key(1), None)
    std = noise * bound * np.sqrt(4 / honest) / expected
    for grads in (first, second):
        assert stats.kstest(np.asarray(grads["w"]) / std, "norm").pvalue > 1e-3
    assert abs(stats.pearsonr(first["w"], second["w"]).statistic) < 0.06


def test_sites_add_noise_of_their_own():
    zero = {"w": jnp.zeros(2000)}
    sent = []

    def listening(of_site, sites):
        sent.extend(of_site(jnp.int32(site))[1]["w"] for site in range(sites))
        return jnp.zeros(()), zero

    gradient = gradients.private_gradient(
        lambda *_: (jnp.zeros(()), zero),
        3,
        noise=1.0,
        bound=1.0,
        expected=1.0,
        honest=3,
        sum_sites=listening,
    )
    gradient(zero, jax.random.key(0), None)
    across = np.corrcoef(np.array(sent))[np.triu_indices(3, 1)]
    assert (np.abs(across) < 0.1).all()


def test_more_honest_sites_than_sites_are_refused():
    with pytest.raises(ValueError, match="`honest` 4 of 3 sites"):
        gradients.private_gradient(_of_site, 3, noise=1.0, bound=1.0, expected=1.0, honest=4)
