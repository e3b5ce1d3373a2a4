import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from gxdistill.distill.losses import cross_entropy, inner_loss, real_loss
from tests import toy


def _cross_entropy(logits, labels):
    return -np.mean(np.sum(labels * scipy.special.log_softmax(logits, axis=-1), axis=-1))


def test_cross_entropy_takes_labels_that_are_no_probabilities():
    logits, labels = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    expected = _cross_entropy(logits, labels)
    np.testing.assert_allclose(cross_entropy(logits, labels), expected, rtol=1e-5)


def test_cross_entropy_of_sure_logits_is_finite():
    logits = jnp.array([[1e4, 0.0], [0.0, 1e4]])
    labels = jnp.array([[0.0, 1.0], [0.0, 1.0]])
    assert float(cross_entropy(logits, labels)) == 5e3
    assert np.isfinite(jax.jit(jax.grad(cross_entropy))(logits, labels)).all()


@pytest.mark.parametrize(
    ("rule", "read"), [("raw", lambda y: y), ("softmax", lambda y: scipy.special.softmax(y, -1))]
)
def test_inner_loss_reads_labels_by_the_rule(rule, read):
    network = toy.network()
    params = network.init(jax.random.key(0))
    batch = toy.batch(np.random.default_rng(0), 4)
    labels = np.random.default_rng(1).normal(size=(4, toy.CLASSES)).astype(np.float32)
    expected = _cross_entropy(np.asarray(network.apply(params, batch.images)), read(labels))
    actual = jax.jit(inner_loss(network, rule))(params, batch.images, labels)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


@pytest.mark.parametrize(("count", "chunk"), [(7, 3), (6, 3), (5, 8), (70, None)])
def test_a_batch_in_chunks_has_the_loss_and_gradient_of_the_whole(count, chunk):
    network = toy.network()
    params = network.init(jax.random.key(0))
    batch = toy.batch(np.random.default_rng(0), count)
    labels = jax.nn.one_hot(batch.targets, toy.CLASSES)
    whole = jax.value_and_grad(lambda p: cross_entropy(network.apply(p, batch.images), labels))
    chunked = real_loss(network, chunk=chunk)
    actual = jax.jit(jax.value_and_grad(chunked))(params, batch.images, labels)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), actual, whole(params)
    )
    np.testing.assert_allclose(chunked(params, batch.images, labels), actual[0], rtol=1e-6)
    doubled = jax.grad(lambda p: 2 * chunked(p, batch.images, labels))(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, 2 * b, rtol=1e-5), doubled, actual[1])
