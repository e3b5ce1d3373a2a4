"""Sites with a linear problem each, whose gradients NumPy has in a line."""

import jax
import jax.numpy as jnp
import numpy as np

from gxdistill.pytrees import Batch

ROWS, FEATURES = 12, 3


def sites(count, seed=0):
    """Patients of each site: `[count, ROWS, FEATURES]` and targets `[count, ROWS]`, float32."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, ROWS, FEATURES)).astype(np.float32)
    slope = rng.normal(size=(count, FEATURES, 1))
    y = (x @ slope)[..., 0] + 0.1 * rng.normal(size=(count, ROWS))
    return x, y.astype(np.float32)


def loss(weights, batch):
    """Half the mean squared error."""
    return 0.5 * jnp.mean((batch.images @ weights["w"] - batch.targets) ** 2)


def draw_all(feed, site, _):
    """All patients of a site."""
    x, y = feed
    return Batch(x[site], y[site], jnp.arange(ROWS))


def draw_some(feed, site, key):
    """Four patients of a site, by the key."""
    x, y = feed
    rows = jax.random.choice(key, ROWS, (4,), replace=False)
    return Batch(x[site][rows], y[site][rows], rows)


def gradient(w, x, y):
    """Of `loss`, in NumPy."""
    return x.T @ (x @ w - y) / len(y)
