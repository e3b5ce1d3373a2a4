"""Images drawn from a mixture of Gaussians that is fitted to the real patches of each class.

Nearer to real patches than noise is, and no patch among them: each image mixes all patches of a
cluster. Statistics of few patients still tell of these; there is no guarantee.
"""

import jax
import numpy as np

FEWEST = 50  # Patches of a cluster that images are drawn from: no single one stands out of these.


def centres(images: np.ndarray, count: int, key: jax.Array, rounds: int = 20) -> np.ndarray:
    """Finds centres of images by Lloyd's algorithm, from random ones of them.

    Lloyd 1982, https://doi.org/10.1109/TIT.1982.1056489.

    Args:
      images: `[n, ...]`.
      count: number of centres; with more than n, some are equal.
      key: typed PRNG key of the start.
      rounds: how often the centres move to the mean of the images that are nearest to them.

    Returns:
      The centres, `[count, ...]`.
    """
    flat = images.reshape(len(images), -1)
    found = some(flat, count, key)
    for _ in range(rounds):
        near = _nearest(flat, found)
        for i in np.unique(near):
            found[i] = flat[near == i].mean(axis=0)
    return found.reshape(count, *images.shape[1:])


def some(images: np.ndarray, count: int, key: jax.Array) -> np.ndarray:
    """Takes random images, none twice where there are enough."""
    rows = jax.random.choice(key, len(images), (count,), replace=len(images) < count)
    return images[np.asarray(rows)]


def drawn(
    images: np.ndarray, labels: np.ndarray, classes: np.ndarray, key: jax.Array
) -> np.ndarray:
    """Draws images of given classes, each from the Gaussian of a cluster of real patches.

    A cluster has `FEWEST` patches or more, twice as many on average, and is as likely as it is
    large. No covariance is formed: the sum of a cluster's n deviations from its mean, each times a
    draw from N(0, 1 / n), has the cluster's own.

    Args:
      images: real patches, `[n, H, W, C]` float32.
      labels: their classes, `[n]`.
      classes: of what is drawn, any shape `[...]`.
      key: typed PRNG key.

    Returns:
      Images, `[..., H, W, C]` float32.

    Raises:
      ValueError: a class has fewer than `FEWEST` patches.
    """
    found = np.zeros((*np.shape(classes), *images.shape[1:]), np.float32)
    for label in np.unique(classes):
        mine = images[labels == label]
        if len(mine) < FEWEST:
            raise ValueError(
                f"Class {label} has {len(mine)} patches; a mixture is fitted to {FEWEST} at least."
            )
        flat, wanted = mine.reshape(len(mine), -1), np.asarray(classes) == label
        start, draw = jax.random.split(jax.random.fold_in(key, int(label)))
        near = _clusters(flat, start)
        sizes = np.bincount(near)
        rng = np.random.default_rng(np.asarray(jax.random.bits(draw, (4,))).tolist())
        counts = rng.multinomial(wanted.sum(), sizes / sizes.sum())
        parts = []
        for cluster, count in enumerate(counts):
            members = flat[near == cluster]
            mean = members.mean(axis=0)
            shares = rng.standard_normal((count, len(members)), np.float32)
            parts.append(mean + shares @ (members - mean) / np.float32(len(members) ** 0.5))
        rows = rng.permutation(np.concatenate(parts))
        found[wanted] = rows.reshape(-1, *images.shape[1:])
    return found


def _clusters(flat: np.ndarray, key: jax.Array) -> np.ndarray:
    """Parts rows into clusters, none with fewer than `FEWEST`: tells each row the number of its."""
    found = centres(flat, max(1, len(flat) // (2 * FEWEST)), key)
    large = np.bincount(_nearest(flat, found), minlength=len(found)) >= FEWEST
    return _nearest(flat, found[large])


def _nearest(flat: np.ndarray, found: np.ndarray) -> np.ndarray:
    # |x - c|^2 up to the term in x alone, which does not change the nearest centre.
    return (np.square(found).sum(1) - 2 * flat @ found.T).argmin(axis=1)
