"""A network and a problem that are small enough to compile and learn in no time."""

import contextlib
import math

import jax
import jax.numpy as jnp
import numpy as np

from gxdistill.pytrees import Batch, Network

SHAPE = (4, 4, 1)
CLASSES = 3


@contextlib.contextmanager
def quick_compilation(quick=True):
    """Compiles in half the time, for programs that run a few times on tiny arrays.

    They are forgotten afterwards: who runs them elsewhere wants the bits of the ordinary ones.
    """
    before = jax.config.read("jax_disable_most_optimizations")
    if before != quick:
        jax.clear_caches()
    jax.config.update("jax_disable_most_optimizations", quick)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)
        if before != quick:
            jax.clear_caches()


def network(hidden=6, shape=SHAPE, classes=CLASSES):
    """A perceptron with one layer of tanh: smooth, so that differences tell its gradient."""
    inputs = math.prod(shape)

    def init(key):
        drawn = jax.random.normal(key, ((inputs + classes) * hidden,))
        first, last = jnp.split(drawn, [inputs * hidden])
        return {
            "first": first.reshape(inputs, hidden) / math.sqrt(inputs),
            "last": last.reshape(hidden, classes) / math.sqrt(hidden),
            "bias": jnp.zeros(classes),
        }

    def apply(params, images):
        features = jnp.tanh(images.reshape(len(images), -1) @ params["first"])
        return features @ params["last"] + params["bias"]

    return Network(init, apply)


def batch(rng, count):
    """Images that a linear rule tells apart: each class is one pattern under noise."""
    patterns = np.random.default_rng(0).normal(size=(CLASSES, *SHAPE))
    labels = np.arange(count) % CLASSES
    images = patterns[labels] + 0.5 * rng.normal(size=(count, *SHAPE))
    return Batch(
        jnp.asarray(images, jnp.float32),
        jnp.asarray(labels, jnp.int32),
        jnp.asarray(np.arange(count), jnp.int32),
    )


def accuracy(network, params, batch):
    return float(jnp.mean(network.apply(params, batch.images).argmax(axis=-1) == batch.targets))


def draw(feed, key, count=60):
    """Draws a batch out of one."""
    rows = jax.random.randint(key, (count,), 0, len(feed.targets))
    return jax.tree.map(lambda column: column[rows], feed)
