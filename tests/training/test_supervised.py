import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gxdistill.pytrees import Network
from gxdistill.training.steps import several_steps
from gxdistill.training.supervised import classification_loss, supervised
from tests import toy

NETWORK = toy.network()
KEY = jax.random.key(4)


@pytest.fixture(scope="module")
def start():
    return NETWORK.init(jax.random.key(0))


@pytest.fixture(scope="module")
def pool():
    return toy.batch(np.random.default_rng(0), 30)


def test_training_on_all_real_patches_learns_the_toy_problem(start):
    rng = np.random.default_rng(5)
    real, held_out = toy.batch(rng, 300), toy.batch(rng, 300)
    loop = supervised(classification_loss(NETWORK), count=60, lr=0.03)
    call = jax.jit(several_steps(loop, toy.draw, 60))
    train_one = lambda key: call(loop.init(start, key), real)[0].learned
    params = train_one(KEY)
    assert toy.accuracy(NETWORK, start, held_out) < 0.7
    assert toy.accuracy(NETWORK, params, held_out) > 0.95
    jax.tree.map(np.testing.assert_array_equal, params, train_one(KEY))
    assert not np.array_equal(params["last"], train_one(jax.random.key(6))["last"])


def test_weights_without_a_gradient_decay_as_the_rate_falls(pool, start):
    network = Network(NETWORK.init, lambda params, images: NETWORK.apply(params["used"], images))
    before = {"used": start, "unused": jnp.array([1.0, -2.0])}
    loop = supervised(classification_loss(network), count=20, lr=0.1, decay=0.5)
    after = jax.jit(several_steps(loop, toy.draw, 20))(loop.init(before, KEY), pool)[0].learned
    rates = 0.1 * np.cos(np.pi * np.arange(20) / 40) ** 2
    left = np.prod(1 - 0.5 * rates)
    np.testing.assert_allclose(after["unused"], [left, -2 * left], rtol=1e-5)
