import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gxdistill.distill import inner
from gxdistill.distill.losses import inner_loss
from gxdistill.pytrees import Distilled
from tests import toy

# Adam's `eps` lies under the root here.
ORACLES = {
    "sgd": optax.identity(),
    "momentum": optax.trace(0.9),
    "adam": optax.scale_by_adam(eps=0.0, eps_root=1e-8),
}


@pytest.mark.parametrize("name", inner.OPTIMIZERS)
def test_moves_are_those_of_optax(name):
    ours, theirs = inner.OPTIMIZERS[name](), ORACLES[name]
    step = jax.jit(ours.step(lambda w, images, _: jnp.sum(w * images)))  # images: its gradient
    w, rng = jnp.zeros((2, 3)), np.random.default_rng(0)
    carry, expected_state = (w, ours.init(w)), theirs.init(w)
    for lr in (0.1, 1.0, 0.3, 0.5):
        grads = jnp.asarray(rng.normal(size=w.shape), jnp.float32)
        carry = step(carry, Distilled(grads, jnp.zeros(1), jnp.log(jnp.float32(lr))))
        moves, expected_state = theirs.update(grads, expected_state)
        w = w - lr * moves
        np.testing.assert_allclose(carry[0], w, rtol=2e-4, atol=1e-6)


def test_adam_is_differentiable_where_the_gradient_is_zero():
    adam = inner.adam()
    step = adam.step(lambda w, images, _: jnp.sum(w * images))

    def moved(images):
        carry = jnp.ones(3), adam.init(jnp.ones(3))
        for _ in range(2):
            carry = step(carry, Distilled(images, jnp.zeros(1), jnp.float32(0)))
        return jnp.sum(carry[0])

    assert np.isfinite(jax.grad(moved)(jnp.zeros(3))).all()


@pytest.mark.parametrize("name", inner.OPTIMIZERS)
def test_the_way_back_is_that_of_reverse_over_reverse(name, x64):  # noqa: ARG001
    """JAX's own derivative of the step, without the short cut."""
    network = toy.network(hidden=3)
    loss, optimizer = inner_loss(network, "softmax"), inner.OPTIMIZERS[name]()
    rng = np.random.default_rng(3)
    params = jax.tree.map(jnp.float64, network.init(jax.random.key(0)))
    batch = Distilled(
        jnp.asarray(rng.normal(size=(4, *toy.SHAPE))),
        jnp.asarray(rng.normal(size=(4, toy.CLASSES))),
        jnp.float64(-1.0),
    )
    # A start at which the state has a part in it.
    carry = optimizer.step(loss)((params, optimizer.init(params)), batch)

    def plainly(carry, batch):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jax, "custom_vjp", lambda function: _Plain(function))
            return optimizer.step(loss)(carry, batch)

    end, pull = jax.vjp(jax.jit(optimizer.step(loss)), carry, batch)
    expected_end, expected_pull = jax.vjp(plainly, carry, batch)
    by_end = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), end)
    for ours, theirs in ((end, expected_end), (pull(by_end), expected_pull(by_end))):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), ours, theirs
        )


def test_a_loss_without_a_forward_mode_has_the_same_way_back():
    @jax.custom_vjp
    def square(x):
        return x**2

    square.defvjp(lambda x: (x**2, x), lambda x, ct: (2 * x * ct,))
    losses = [lambda w, x, y, f=f: jnp.sum(f(jnp.tanh(x @ w) - y)) for f in (square, jnp.square)]
    rng = np.random.default_rng(4)
    x, y, w = (jnp.asarray(rng.normal(size=size)) for size in ((4, 3), (4, 2), (3, 2)))
    for optimizer in (inner.sgd(), inner.momentum()):
        carry = w, optimizer.init(w)
        batch = Distilled(x, y, jnp.float32(-1))
        ours, theirs = (
            jax.jit(lambda c, d, step=step: jax.vjp(step, c, d)[1](c))(carry, batch)
            for step in map(optimizer.step, losses)
        )
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), ours, theirs)


class _Plain:
    """A function with no derivative of its own."""

    def __init__(self, function):
        self.function = function

    def __call__(self, *arguments):
        return self.function(*arguments)

    def defvjp(self, *_):
        pass


def test_all_state_is_float_so_that_each_leaf_has_a_cotangent():
    for make in inner.OPTIMIZERS.values():
        for leaf in jax.tree.leaves(make().init({"w": jnp.ones(2)})):
            assert jnp.issubdtype(leaf.dtype, jnp.floating)


def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"`decay` is 1\.5"):
        inner.momentum(1.5)
    with pytest.raises(ValueError, match="`eps` is 0"):
        inner.adam(eps=0)
    with pytest.raises(ValueError, match="`inner` is 'lion'; it must be one of 'sgd', 'momentum'"):
        inner.create("lion")
    assert inner.create("momentum", decay=0.5) is inner.create("momentum", decay=0.5)
