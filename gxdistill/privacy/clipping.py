"""Bounds what one patient can change; sensitivity is defined here and nowhere else."""

import jax
import jax.numpy as jnp
import optax

from gxdistill import _check
from gxdistill.pytrees import Params


def clip_by_norm(tree: Params, norm: float) -> Params:
    """Scales what one patient contributes down to an L2 norm.

    As in Abadi et al. 2016, https://arxiv.org/abs/1607.00133: g / max(1, |g| / C).

    Args:
      tree: a pytree of float arrays; its norm is over all of them together.
      norm: C, largest norm.

    Returns:
      The scaled tree; zeros where a value is not finite, so that such a patient has no part.

    Raises:
      ValueError: `norm` is not positive.
    """
    _check.positive(norm=norm)
    length = optax.tree.norm(tree)
    is_finite = jnp.isfinite(length)
    factor = jnp.minimum(1, norm / jnp.where(length > 0, length, norm))
    return jax.tree.map(lambda leaf: jnp.where(is_finite, factor * leaf, 0), tree)


def clipped_sum(contributions: Params, norm: float, present: jax.Array | None = None) -> Params:
    """Adds up what patients contribute, each clipped.

    Args:
      contributions: each leaf with a leading axis N, one row a patient.
      norm: largest L2 norm of a patient's contribution.
      present: `[N]` bool, rows that count; None for all.

    Returns:
      The sum; adding or removing one patient changes it by `sensitivity(norm)` at most.

    Raises:
      ValueError: `norm` is not positive.
    """
    clipped = jax.vmap(lambda row: clip_by_norm(row, norm))(contributions)
    if present is None:
        return jax.tree.map(lambda leaf: leaf.sum(axis=0), clipped)

    def sum_of_present(leaf: jax.Array) -> jax.Array:
        rows = present.reshape(-1, *(1,) * (leaf.ndim - 1))
        return jnp.where(rows, leaf, 0).sum(axis=0)

    return jax.tree.map(sum_of_present, clipped)


def sensitivity(norm: float) -> float:
    """Tells how far a sum of clipped contributions moves at most, in L2.

    One patient is added or removed, and with it the one contribution of norm `norm` at most. A mean
    over the number of patients would depend on that number: divide by a constant instead.

    Raises:
      ValueError: `norm` is not positive.
    """
    _check.positive(norm=norm)
    return float(norm)
