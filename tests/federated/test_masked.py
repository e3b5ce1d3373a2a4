"""A round whose sum goes through the real protocol, and one that the protocol refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gxdistill.federated import aggregation, local, masked, rounds
from tests.federated import linear


def _state(sum_sites, feed):
    training = local.local_training(local.mean_gradient(linear.loss), optax.sgd(0.1), 2)
    loop = rounds.federation(
        training,
        linear.draw_some,
        np.array([1.0, 2.0, 3.0]),
        server=aggregation.server_optimizer("sgd", 1.0),
        sum_sites=sum_sites,
    )
    state, update = loop.init({"w": jnp.zeros(3)}, jax.random.key(0)), jax.jit(loop.update)
    for _ in range(3):
        state, _ = update(state, feed)
    return state


def test_rounds_of_masked_sums_end_where_plain_ones_do_and_twice_alike():
    feed, said = linear.sites(3), []
    plain = _state(aggregation.in_sequence, feed).learned["w"]
    first, second = (_state(masked.masked(50.0, 2, said.append), feed).learned["w"] for _ in "12")
    np.testing.assert_allclose(first, plain, rtol=1e-5)
    assert np.asarray(first).tobytes() == np.asarray(second).tobytes()
    assert not said


def test_a_sum_beyond_its_bound_is_refused_and_the_round_skipped():
    said = []
    state = _state(masked.masked(1e-3, 2, said.append), linear.sites(3))
    assert int(state.skipped) == 3
    assert len(said) == 3
    assert "larger than the bound 0.001" in said[0]
