"""One private release of what images are like, and distilled images that match it.

Of each patient the bounded features of the images are averaged: their second moments over all
classes, their sums by class, and the same of coordinates that images can be made of, by class. All
of it, each part times a weight, is one vector of norm 1 at most, and one Gaussian release covers
it. A linear teacher of that release, and images drawn from it (`privacy.matching`), are
post-processing: they cost nothing more.
"""

import dataclasses
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from gxdistill import _check
from gxdistill.privacy import clipping
from gxdistill.privacy.features import Features, in_blocks
from gxdistill.privacy.ledger import Ledger, gaussian_release

_WHAT = "class sums and second moments of features"
_BLOCK = 500  # Images of which statistics are summed at once.


@flax.struct.dataclass
class Statistics:
    """Sums over patients of what each one's images are like on average.

    With weights of a class k for the share of a patient's images that are of k: features f and
    coordinates q of an image.

    Attributes:
      second: `[d, d]`, of f f^T.
      sums: `[K, d]`, of f by class.
      pixel_second: `[K, k, k]`, of q q^T by class.
      pixel_sums: `[K, k]`, of q by class.
      counts: `[K]`, of 1 by class.
    """

    second: jax.Array
    sums: jax.Array
    pixel_second: jax.Array
    pixel_sums: jax.Array
    counts: jax.Array


@dataclasses.dataclass(frozen=True)
class Parts:
    """How much of the vector's norm each part may have; only their ratios count.

    Attributes:
      second: of `Statistics.second`.
      sums: of `Statistics.sums`.
      pixel_second: of `Statistics.pixel_second`.
      pixel_sums: of `Statistics.pixel_sums`.
      counts: of `Statistics.counts`.

    Raises:
      ValueError: a weight is not positive.
    """

    second: float = 0.7
    sums: float = 0.45
    pixel_second: float = 0.45
    pixel_sums: float = 0.25
    counts: float = 0.15

    def __post_init__(self) -> None:
        """Refuses a part that would be noise alone."""
        _check.positive(**dataclasses.asdict(self))

    def weights(self) -> dict[str, float]:
        """Scales the weights so that their squares sum to 1."""
        weights = dataclasses.asdict(self)
        norm = float(np.sqrt(sum(weight**2 for weight in weights.values())))
        return {name: weight / norm for name, weight in weights.items()}


@flax.struct.dataclass
class Released:
    """Statistics with their noise, and how large that is.

    Attributes:
      statistics: with noise.
      deviations: standard deviation of the noise of each part, by its name: a number of a sum, and
        an entry beside the diagonal of a second moment has 1 / sqrt(2) of it.
    """

    statistics: Statistics
    deviations: dict[str, jax.Array]


def pack(statistics: Statistics, parts: Parts) -> dict[str, jax.Array]:
    """Weighs statistics as they are released: the norm of one patient's is 1 at most.

    Of a symmetric matrix the upper half is kept, times sqrt(2) beside the diagonal: as long as the
    matrix, and no number is noised twice.
    """
    weights = parts.weights()
    return {
        name: weights[name] * (_upper(value) if "second" in name else value)
        for name, value in vars(statistics).items()
    }


def unpack(packed: dict[str, jax.Array], parts: Parts) -> Statistics:
    """Makes statistics of what `pack` made, noisy or not."""
    weights = parts.weights()
    return Statistics(
        **{
            name: (_whole(value) if "second" in name else value) / weights[name]
            for name, value in packed.items()
        }
    )


def _upper(matrices: jax.Array) -> jax.Array:
    rows, columns = np.triu_indices(matrices.shape[-1])
    return matrices[..., rows, columns] * np.where(rows == columns, 1, np.sqrt(2)).astype(
        np.float32
    )


def _whole(upper: jax.Array) -> jax.Array:
    side = int((np.sqrt(8 * upper.shape[-1] + 1) - 1) / 2)
    rows, columns = np.triu_indices(side)
    values = upper / np.where(rows == columns, 1, np.sqrt(2)).astype(np.float32)
    matrices = jnp.zeros((*upper.shape[:-1], side, side), upper.dtype)
    matrices = matrices.at[..., rows, columns].set(values)
    return matrices.at[..., columns, rows].set(values)


def weighted(vectors: tuple[jax.Array, jax.Array], shares: jax.Array) -> Statistics:
    """Sums statistics of images, each weighed by class.

    Args:
      vectors: features `[N, d]` and coordinates `[N, k]`, of norm 1 at most.
      shares: `[N, K]`, how much an image counts in each class.
    """
    described, coordinates = vectors
    shares = shares.astype(described.dtype)
    total = shares.sum(axis=1)
    return Statistics(
        second=(described * total[:, None]).T @ described,
        sums=shares.T @ described,
        pixel_second=jnp.einsum("nc,ni,nj->cij", shares, coordinates, coordinates),
        pixel_sums=shares.T @ coordinates,
        counts=shares.sum(axis=0),
    )


def summarise(
    features: Features,
    batches: Callable[[slice], tuple[jax.Array, np.ndarray]],
    patients: np.ndarray,
    classes: int,
) -> Statistics:
    """Sums the statistics of all patients, of each the mean over the images.

    A mean of vectors of norm 1 at most has norm 1 at most: nothing more is to be clipped, however
    many images a patient has.

    Args:
      features: what images are described by.
      batches: `rows -> images [n, H, W, C], labels [n]`, images from 0 to 1.
      patients: `[N]`, of whom the images are; any ids.
      classes: K.
    """
    _, index, counts = np.unique(patients, return_inverse=True, return_counts=True)
    shares = (1 / counts[index]).astype(np.float32)

    @jax.jit
    def of_block(images: jax.Array, labels: jax.Array, shares: jax.Array) -> Statistics:
        vectors = features.describe(images), features.pixels(images)
        # An image whose features are not finite has no part, as `clipping.clip_by_norm` has it.
        sound = jnp.stack([jnp.isfinite(vector).all(axis=1) for vector in vectors]).all(axis=0)
        described, coordinates = (jnp.where(sound[:, None], vector, 0) for vector in vectors)
        by_class = jax.nn.one_hot(labels, classes) * (shares * sound)[:, None]
        return weighted((described, coordinates), by_class)

    total = None
    for at in range(0, len(patients), _BLOCK):
        rows = slice(at, at + _BLOCK)
        images, labels = batches(rows)
        part = jax.device_get(of_block(images, jnp.asarray(labels), shares[rows]))
        part = jax.tree.map(lambda leaf: leaf.astype(np.float64), part)
        total = part if total is None else jax.tree.map(np.add, total, part)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), total)


def release(
    key: jax.Array, statistics: Statistics, parts: Parts, noise_multiplier: float, ledger: Ledger
) -> tuple[Released, Ledger]:
    """Releases statistics once, under Gaussian noise.

    Args:
      key: typed, secret PRNG key.
      statistics: of all patients.
      parts: how the vector is divided.
      noise_multiplier: see `ledger.calibrate`.
      ledger: of what was released before.

    Returns:
      The noisy statistics, and the ledger with the event.

    Raises:
      BudgetError: the budget would be exceeded; nothing was released.
    """
    noisy, ledger = gaussian_release(
        key,
        pack(statistics, parts),
        sensitivity=clipping.sensitivity(1.0),
        noise_multiplier=noise_multiplier,
        ledger=ledger,
        what=_WHAT,
    )
    deviations = {
        name: jnp.float32(noise_multiplier / weight) for name, weight in parts.weights().items()
    }
    return Released(unpack(noisy, parts), deviations), ledger


def positive(matrices: jax.Array) -> jax.Array:
    """Sets negative eigenvalues of symmetric matrices, which noise alone makes, to 0."""
    values, vectors = jnp.linalg.eigh(matrices)
    return (vectors * jnp.maximum(values, 0)[..., None, :]) @ jnp.swapaxes(vectors, -1, -2)


def teacher(released: Released) -> jax.Array:
    """Solves ridge regression of the classes on the features, of released statistics alone.

    The ridge is sqrt(d) times the noise's deviation, half the norm of a matrix of noise (Wigner
    1958), and 1 at least.

    Returns:
      `[d, K]`: features times it are about the probabilities of the classes.
    """
    second = positive(released.statistics.second)
    count = len(second)
    ridge = jnp.maximum(released.deviations["second"] * count**0.5, 1)
    return jnp.linalg.solve(second + ridge * jnp.eye(count), released.statistics.sums.T)


def soft_labels(
    features: Features, weights: jax.Array, images: jax.Array, sharpness: float
) -> jax.Array:
    """Labels images by a teacher: softmax of `sharpness` times what it says of them, `[N, K]`."""
    describe = jax.jit(features.describe)
    return jax.nn.softmax(sharpness * in_blocks(describe, images) @ weights)
