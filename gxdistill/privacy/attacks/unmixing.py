"""Attacks on mixtures `lambda x + (1 - lambda) r`: who is in them, and what a server can rebuild.

From the cheapest to the dearest: mere likeness; a network that was trained to separate mixtures of
other patients, which needs to know nothing of the references; the mean of several mixtures of one
image, as Carlini et al. 2021, https://arxiv.org/abs/2011.05315, broke InstaHide; and subtracting
the reference, where the server knows the pool that it was drawn from. All are functions of arrays:
a volume of P patients is `[P, ...]`.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gxdistill.mixup.mixing import Law, draw_shares, mix
from gxdistill.privacy.attacks.scores import Estimate, clopper_pearson
from gxdistill.pytrees import Batch, Params
from gxdistill.training.steps import Gradient


class Retrieval(NamedTuple):
    """How well queries find their own patient in a gallery.

    Attributes:
      precision_at_1: share of queries whose nearest volume is of their patient, with its interval.
      mean_average_precision: mean of 1 / rank, as each patient has one volume in the gallery.
      chance: what guessing gives for the first.
    """

    precision_at_1: Estimate
    mean_average_precision: float
    chance: float

    @property
    def over_chance(self) -> float:
        """Precision at 1 in units of chance."""
        return self.precision_at_1.value / self.chance


def _directions(volumes: np.ndarray) -> np.ndarray:
    """Brings each volume, less the mean of all, to length 1: `[P, pixels]`."""
    flat = volumes.reshape(len(volumes), -1).astype(np.float64)
    flat = flat - flat.mean(0)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)


def retrieval(queries: np.ndarray, gallery: np.ndarray) -> Retrieval:
    """Looks each query up in a gallery by correlation, what all volumes share left out.

    Args:
      queries: mixtures, or what an attack made of them, `[P, ...]`.
      gallery: raw volumes of the same patients in the same order, of the same shape.

    Returns:
      How often the right one comes first.

    Raises:
      ValueError: the shapes differ.
    """
    if queries.shape != gallery.shape:
        raise ValueError(
            f"Queries of shape {queries.shape} cannot be looked up in a gallery of "
            f"{gallery.shape}. Give one volume a patient, in the same order."
        )
    likeness = _directions(queries) @ _directions(gallery).T
    # Of equals, half come before: who sends nothing is found by chance alone.
    right = np.diag(likeness)[:, None]
    ranks = 1 + (likeness > right).sum(1) + ((likeness == right).sum(1) - 1) / 2
    count = len(ranks)
    return Retrieval(
        clopper_pearson(int((ranks == 1).sum()), count), float((1 / ranks).mean()), 1 / count
    )


def average_queries(mixtures: Sequence[np.ndarray]) -> np.ndarray:
    """Averages several mixtures of each image: the references thin out, the image stays.

    Args:
      mixtures: one array `[P, ...]` for each time that all images were mixed.

    Returns:
      `[P, ...]`, as clear as `mixup.mixing.exposure` tells.
    """
    return np.mean(mixtures, axis=0)


class Subtracted(NamedTuple):
    """What is left of mixtures without their references.

    Attributes:
      images: lambda x, and what the estimate of lambda missed, `[P, ...]`.
      references: row of the pool that was taken for each, `[P]`.
      shares: lambda as it was estimated, `[P]`.
    """

    images: np.ndarray
    references: np.ndarray
    shares: np.ndarray


def _edges(volumes: np.ndarray) -> np.ndarray:
    """Returns the differences of neighbouring pixels along all axes, `[P, differences]`."""
    axes = range(1, volumes.ndim)
    parts = [np.diff(volumes, axis=axis).reshape(len(volumes), -1) for axis in axes]
    return np.concatenate(parts, axis=1).astype(np.float64)


def subtract_known(mixtures: np.ndarray, pool: np.ndarray) -> Subtracted:
    """Subtracts from each mixture the reference of a known pool that explains most of its edges.

    Edges of two patients fall together by chance, so that the share of the reference is the
    regression of the mixture's edges on the reference's.

    Args:
      mixtures: `[P, ...]`, from 0 to 1.
      pool: the references that the server knows or guesses, `[R, ...]`.

    Returns:
      What is left.
    """
    edges, known = _edges(mixtures), _edges(pool)
    sizes = np.maximum((known**2).sum(1), 1e-12)
    weights = edges @ known.T / sizes
    best = (weights**2 * sizes).argmax(1)
    taken = weights[np.arange(len(mixtures)), best]
    shaped = taken.reshape(-1, *[1] * (mixtures.ndim - 1))
    return Subtracted(mixtures - shaped * pool[best], best, 1 - taken)


def separation_gradient(apply: Callable[[Params, jax.Array], jax.Array], law: Law) -> Gradient:
    """Builds the gradient of a network that is to see in a mixture what was mixed in.

    The attacker has slices of other patients, mixes them by the law that is used, and learns to
    give the first of two back: mean squared error, for the best guess of a pixel is its mean.

    Args:
      apply: `(params, mixtures [N, H, W, C]) -> slices [N, H, W, C]`.
      law: of lambda.

    Returns:
      `(params, key, batch) -> (loss, gradients)`; a batch holds N slices, then N to mix them with.
    """

    def loss(params: Params, key: jax.Array, batch: Batch) -> jax.Array:
        count = len(batch.images) // 2
        slices, others = batch.images[:count], batch.images[count:]
        mixtures = mix(slices, others, draw_shares(key, count, law))
        return jnp.mean(jnp.square(apply(params, mixtures) - slices))

    return jax.value_and_grad(loss)


def mean_likeness(reconstructions: np.ndarray, volumes: np.ndarray) -> float:
    """Averages over patients the correlation of a reconstruction with the volume, both `[P, ...]`.

    What all volumes share is left out, so that the mean patient, as a guess, has 0.
    """
    return float((_directions(reconstructions) * _directions(volumes)).sum(1).mean())
