import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gxdistill.distill.losses import inner_loss
from gxdistill.distill.memory import STRATEGIES, Memory
from gxdistill.distill.unroll import Training, unroll
from gxdistill.pytrees import Distilled
from tests import toy

pytestmark = pytest.mark.usefixtures("x64")


def _half_mse(w, images, labels):
    return 0.5 * jnp.mean((images.reshape(len(images), -1) @ w - labels[:, 0]) ** 2)


def _data(steps, epochs, classes=toy.CLASSES, shape=toy.SHAPE, per_step=4):
    rng = np.random.default_rng(0)
    return Distilled(
        jnp.asarray(rng.normal(size=(steps, per_step, *shape))),
        jnp.asarray(rng.normal(size=(steps, per_step, classes))),
        jnp.asarray(rng.uniform(-3, -1, size=steps * epochs)),
    )


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_gradient_of_one_step_matches_the_chain_rule(strategy):
    data, w0 = _data(1, 1, classes=1, shape=(1, 3, 1)), np.ones(3)
    training = Training(memory=Memory(strategy))
    meta = lambda data: 0.5 * jnp.sum(unroll(_half_mse, w0, data, training) ** 2)
    grads = jax.jit(jax.grad(meta))(data)

    x, y, lr = (np.asarray(leaf[0]) for leaf in (data.images, data.labels, np.exp(data.log_lr)))
    x, y = x.reshape(4, 3), y[:, 0]
    residual = x @ w0 - y
    inner = x.T @ residual / len(y)
    w1 = w0 - lr * inner  # so dw1/dlog_lr = -lr * inner and dw1/dy = lr * x.T / n
    np.testing.assert_allclose(grads.log_lr[0], -lr * inner @ w1, rtol=1e-10)
    np.testing.assert_allclose(grads.labels[0, :, 0], lr / len(y) * x @ w1, rtol=1e-10)
    by_image = -lr / len(y) * (np.outer(residual, w1) + np.outer(x @ w1, w0))
    np.testing.assert_allclose(grads.images.reshape(4, 3), by_image, rtol=1e-10)


def test_many_steps_towards_one_target_have_a_closed_form():
    """With loss (w - y)^2 / 2, w[T] - y = prod_t (1 - lr[t]) (w[0] - y)."""
    y, w0, lr = 0.7, jnp.float64(2.0), np.array([0.1, 0.5, 0.3, 0.2, 1.4, 0.6])
    data = Distilled(np.zeros((2, 1, 1, 1, 1)), np.full((2, 1, 1), y), np.log(lr))
    loss = lambda w, images, labels: 0.5 * jnp.sum((w - labels + images[..., 0, 0]) ** 2)
    end = functools.partial(unroll, loss)
    value, (by_start, by_data) = jax.jit(jax.value_and_grad(end, argnums=(0, 1)))(w0, data)

    kept = np.prod(1 - lr)
    np.testing.assert_allclose(value, y + kept * (2 - y), rtol=1e-12)
    np.testing.assert_allclose(by_start, kept, rtol=1e-12)
    np.testing.assert_allclose(by_data.log_lr, -lr * kept / (1 - lr) * (2 - y), rtol=1e-12)
    np.testing.assert_allclose(by_data.labels.sum(), 1 - kept, rtol=1e-12)


LOSS = inner_loss(toy.network(), "raw")
GRADIENT = jax.jit(jax.grad(LOSS))


@pytest.mark.parametrize(("steps", "epochs"), [(3, 1), (1, 3), (2, 2)])
def test_equals_a_plain_loop_of_descent(steps, epochs):
    data, params = _data(steps, epochs), toy.network().init(jax.random.key(0))
    actual = jax.jit(functools.partial(unroll, LOSS))(params, data)

    expected, t = params, 0
    for _ in range(epochs):
        for s in range(steps):
            grads = GRADIENT(expected, data.images[s], data.labels[s])
            lr = math.exp(data.log_lr[t])
            expected = {name: np.asarray(expected[name]) - lr * grads[name] for name in params}
            t += 1
    for name in params:
        np.testing.assert_allclose(actual[name], expected[name], rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("rates", [0, 2, 4])
def test_rates_that_do_not_fit_the_batches_are_refused(rates):
    data = dataclasses.replace(_data(3, 1), log_lr=np.zeros(rates))
    with pytest.raises(ValueError, match=f"{rates} learning rates do not fit 3 batches"):
        unroll(LOSS, {}, data)
