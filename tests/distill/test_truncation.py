import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from gxdistill.distill import truncation
from gxdistill.distill.inner import momentum
from gxdistill.distill.memory import Memory
from gxdistill.distill.unroll import Training, unroll
from gxdistill.pytrees import Distilled

pytestmark = pytest.mark.usefixtures("x64")

WINDOWS = (truncation.fixed_window, truncation.random_window, truncation.adaptive_window)
KEY = jax.random.key(0)
Y, W0 = 0.7, 2.0
RATES = np.array([0.1, 0.5, 0.3, 0.2, 1.4, 0.6])
DATA = Distilled(np.zeros((2, 1, 1, 1, 1)), np.full((2, 1, 1), Y), np.log(RATES))


def _loss(w, images, labels):
    """Of which w[t] - y = prod (1 - lr) (w[0] - y)."""
    return 0.5 * jnp.sum((w - labels + images[..., 0, 0]) ** 2)


def _trajectory():
    return Y + (W0 - Y) * np.cumprod([1, *(1 - RATES)])


@functools.partial(jax.jit, static_argnames=("train",))
def _end_and_gradient(train, data, key):
    return jax.value_and_grad(lambda data: train(_loss, jnp.float64(W0), data, key))(data)


@pytest.mark.parametrize("strategy", ["recompute", "nested"])
def test_the_last_steps_have_the_gradient_of_a_training_that_starts_there(strategy):
    train = truncation.fixed_window(4, Training(memory=Memory(strategy)))
    value, grads = _end_and_gradient(train, DATA, KEY)
    np.testing.assert_allclose(value, _trajectory()[-1], rtol=1e-12)
    kept = np.prod(1 - RATES[2:])
    np.testing.assert_allclose(grads.labels.sum(), 1 - kept, rtol=1e-12)
    slopes = -RATES * kept / (1 - RATES) * (_trajectory()[2] - Y)
    np.testing.assert_allclose(grads.log_lr, [0, 0, *slopes[2:]], rtol=1e-12)


@pytest.mark.parametrize("window", WINDOWS)
def test_a_window_of_all_steps_has_the_full_gradient(window):
    training = Training(momentum(0.5))
    full = truncation.full(training)
    for a, b in zip(
        jax.tree.leaves(_end_and_gradient(window(6, training), DATA, KEY)),
        jax.tree.leaves(_end_and_gradient(full, DATA, KEY)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    np.testing.assert_allclose(
        _end_and_gradient(full, DATA, KEY)[0],
        unroll(_loss, jnp.float64(W0), DATA, training),
        rtol=1e-12,
    )


def _starts(window, draws):
    """Where windows of two steps start, told by the rates that have a gradient."""
    train = window(2)
    by_key = jax.jit(jax.vmap(lambda key: _end_and_gradient(train, DATA, key)))
    values, grads = by_key(jax.random.split(KEY, draws))
    first = np.argmax(np.asarray(grads.log_lr) != 0, axis=1)
    moved = np.zeros((draws, 6), bool)
    moved[np.arange(draws), first] = moved[np.arange(draws), first + 1] = True
    np.testing.assert_array_equal(np.asarray(grads.log_lr) != 0, moved)
    np.testing.assert_allclose(values, _trajectory()[first + 2], rtol=1e-12)
    return np.bincount(first, minlength=5)


def test_a_random_window_lies_anywhere_and_training_ends_with_it():
    counts = _starts(truncation.random_window, 500)
    assert scipy.stats.chisquare(counts).pvalue > 0.01


def test_an_adaptive_window_starts_in_proportion_to_the_gradients():
    counts = _starts(truncation.adaptive_window, 500)
    norms = np.abs(_trajectory()[:5] - Y)
    expected = 500 * norms / norms.sum()
    assert expected.max() > 3 * expected.min()
    assert scipy.stats.chisquare(counts, expected).pvalue > 0.01


def test_a_window_longer_than_the_training_is_the_training():
    value, grads = _end_and_gradient(truncation.random_window(20), DATA, KEY)
    np.testing.assert_allclose(value, _trajectory()[-1], rtol=1e-12)
    assert (np.asarray(grads.log_lr) != 0).all()


def test_impossible_windows_are_refused():
    with pytest.raises(ValueError, match="`length` is 0"):
        truncation.fixed_window(0)
    with pytest.raises(ValueError, match="5 learning rates do not fit 2 batches"):
        truncation.random_window(2)(_loss, W0, DATA.replace(log_lr=np.zeros(5)), KEY)
