import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gxdistill.distill import inner

# Adam's `eps` lies under the root here.
ORACLES = {
    "sgd": optax.identity(),
    "momentum": optax.trace(0.9),
    "adam": optax.scale_by_adam(eps=0.0, eps_root=1e-8),
}


@pytest.mark.parametrize("name", inner.OPTIMIZERS)
def test_moves_are_those_of_optax(name):
    params = {"a": jnp.ones((2, 3)), "b": jnp.zeros(4)}
    ours, theirs = inner.OPTIMIZERS[name](), ORACLES[name]
    state, expected_state = ours.init(params), theirs.init(params)
    rng = np.random.default_rng(0)
    for _ in range(4):
        grads = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), jnp.float32), params)
        moves, state = ours.update(grads, state)
        expected, expected_state = theirs.update(grads, expected_state)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4), moves, expected)


def test_adam_is_differentiable_where_the_gradient_is_zero():
    adam = inner.adam()

    def moved(grads):
        moves, state = adam.update(grads, adam.init(grads))
        return jnp.sum(moves + adam.update(grads, state)[0])

    assert np.isfinite(jax.grad(moved)(jnp.zeros(3))).all()


def test_all_state_is_float_so_that_each_leaf_has_a_cotangent():
    for make in inner.OPTIMIZERS.values():
        for leaf in jax.tree.leaves(make().init({"w": jnp.ones(2)})):
            assert jnp.issubdtype(leaf.dtype, jnp.floating)


def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"`decay` is 1\.5"):
        inner.momentum(1.5)
    with pytest.raises(ValueError, match="`eps` is 0"):
        inner.adam(eps=0)
