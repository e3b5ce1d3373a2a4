"""Images drawn from a mixture of Gaussians that is fitted to the real patches of each class.

Nearer to real patches than noise is, and no patch among them: each image mixes all patches of a
cluster, which are of many patients. That is care taken, and no guarantee.
"""

import warnings

import jax
import numpy as np

FEWEST = 20  # Patients of a cluster that images are drawn from: no single one stands out of these.


def centres(images: np.ndarray, count: int, key: jax.Array, rounds: int = 20) -> np.ndarray:
    """Finds centres of images by k-means, from random ones of them.

    A centre that is nearest to no image stays where it is. Lloyd 1982,
    https://doi.org/10.1109/TIT.1982.1056489.

    Args:
      images: `[n, ...]`.
      count: number of centres; with more than n, some are equal.
      key: typed PRNG key of the start.
      rounds: how often the centres move to the mean of the images that are nearest to them.

    Returns:
      The centres, `[count, ...]`.
    """
    from scipy.cluster import vq  # Takes a third of a second to import; most jobs need none of it.

    flat = images.reshape(len(images), -1)
    # Its own random start is of another generator; with a start given it draws nothing.
    start = some(flat, count, key)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "One of the clusters is empty", UserWarning)
        centroids, _ = vq.kmeans2(flat, start, iter=rounds, minit="matrix")
    return centroids.reshape(count, *images.shape[1:])


def some(images: np.ndarray, count: int, key: jax.Array) -> np.ndarray:
    """Takes random images, none twice where there are enough."""
    rows = jax.random.choice(key, len(images), (count,), replace=len(images) < count)
    return images[np.asarray(rows)]


def drawn(
    images: np.ndarray,
    labels: np.ndarray,
    patients: np.ndarray,
    classes: np.ndarray,
    key: jax.Array,
    *,
    cluster: int = 100,
) -> np.ndarray:
    """Draws images of given classes, each from the Gaussian of a cluster of real patches.

    A cluster has patches of `FEWEST` patients at least, and is as likely as it is large. No
    covariance is formed: the sum of a cluster's n deviations from its mean, each times a draw from
    N(0, 1 / n), has the cluster's own.

    Args:
      images: real patches, `[n, H, W, C]` float32.
      labels: their classes, `[n]`.
      patients: of whom they are, `[n]`.
      classes: of what is drawn, any shape `[...]`.
      key: typed PRNG key.
      cluster: patches of a cluster, on average. Of fewer, draws are more like real patches; of so
        few that no cluster has `FEWEST` patients, all patches of a class are one.

    Returns:
      Images, `[..., H, W, C]` float32.

    Raises:
      ValueError: a class has patches of fewer than `FEWEST` patients.
    """
    images_drawn = np.zeros((*np.shape(classes), *images.shape[1:]), np.float32)
    for label in np.unique(classes):
        of_label, wanted = labels == label, np.asarray(classes) == label
        count = len(np.unique(patients[of_label]))
        if count < FEWEST:
            raise ValueError(
                f"Class {label} has patches of {count} patients; a mixture of fewer than {FEWEST} "
                f"would show them."
            )
        flat = images[of_label].reshape(of_label.sum(), -1)
        start, draw = jax.random.split(jax.random.fold_in(key, int(label)))
        near = _clusters(flat, patients[of_label], start, cluster)
        sizes = np.bincount(near)
        rng = np.random.default_rng(np.asarray(jax.random.bits(draw, (4,))).tolist())
        parts = []
        for i, count in enumerate(rng.multinomial(wanted.sum(), sizes / sizes.sum())):
            members = flat[near == i]
            mean = members.mean(axis=0)
            shares = rng.standard_normal((count, len(members)), np.float32)
            parts.append(mean + shares @ (members - mean) / np.float32(len(members) ** 0.5))
        rows = rng.permutation(np.concatenate(parts))
        images_drawn[wanted] = rows.reshape(-1, *images.shape[1:])
    return images_drawn


def _clusters(flat: np.ndarray, patients: np.ndarray, key: jax.Array, size: int) -> np.ndarray:
    """Parts rows into clusters of `FEWEST` patients or more: tells each row the number of its."""
    from scipy.cluster import vq

    middles = centres(flat, max(1, len(flat) // size), key)
    near, _ = vq.vq(flat, middles)
    counts = np.array([len(np.unique(patients[near == i])) for i in range(len(middles))])
    if counts.max() < FEWEST:
        return np.zeros(len(flat), np.int64)
    return vq.vq(flat, middles[counts >= FEWEST])[0]  # to which rows of the others go, too
