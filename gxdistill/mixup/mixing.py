"""What the client sends, a mixture, and what it keeps: the share of the image in it.

After Kim et al. 2023, https://arxiv.org/abs/2305.13756, of which the idea is known and the law of
the share is not: the laws here are ours. A mixture is a weighted mean. It is no encryption: what it
hides is told by attacks, not by this file.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Law(NamedTuple):
    """The law of lambda, the share of the private image in a mixture: uniform on an interval.

    Attributes:
      low: lowest share, above 0.
      high: highest share, below 1.
    """

    low: float = 0.3
    high: float = 0.5


def check_law(law: Law) -> None:
    """Refuses a law by which nothing, or all, of an image is sent.

    Raises:
      ValueError: naming the bounds.
    """
    if not 0 < law.low <= law.high < 1:
        raise ValueError(
            f"The law of lambda is uniform on {law.low} .. {law.high}; its bounds must lie above 0 "
            f"and below 1, the lower one first."
        )


def draw_shares(key: jax.Array, count: int, law: Law) -> jax.Array:
    """Draws lambda for `count` pairs, `[count]` float32."""
    check_law(law)
    return jax.random.uniform(key, (count,), jnp.float32, law.low, law.high)


def mix(target: jax.Array, reference: jax.Array, share: jax.Array) -> jax.Array:
    """Computes lambda x + (1 - lambda) r, for images or for one-hot labels.

    Args:
      target: x, `[N, ...]` float.
      reference: r, of the same shape.
      share: lambda, `[N]`.

    Returns:
      The mixtures, of the shape of `target`.

    Raises:
      ValueError: the shapes do not fit.

    Example:
      `mix(jnp.ones((1, 4, 4, 1)), jnp.zeros((1, 4, 4, 1)), jnp.array([0.3]))` is .3 everywhere.
    """
    if target.shape != reference.shape:
        raise ValueError(
            f"Images of shape {target.shape} cannot be mixed with references of "
            f"{reference.shape}. Bring both to one shape."
        )
    weight = share.reshape(-1, *[1] * (target.ndim - 1))
    return weight * target + (1 - weight) * reference


def exposure(shares: Sequence[float]) -> float:
    """Computes how clearly the mean of several mixtures of one image shows it.

    The mean of k mixtures of one image with independent references holds the image with weight
    mean lambda, and references of which the deviations add up in squares: the ratio of both grows
    as sqrt(k), and is lambda / (1 - lambda) for one mixture. This is what a server can do without
    any network, as Carlini et al. 2021, https://arxiv.org/abs/2011.05315, did with InstaHide.

    Args:
      shares: lambda of each mixture, at least one.

    Returns:
      Weight of the image over the deviation of what hides it.
    """
    return math.fsum(shares) / math.sqrt(math.fsum((1 - share) ** 2 for share in shares))
