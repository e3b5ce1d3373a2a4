"""How a server makes one update of those of its sites: sums, robust means, its own optimiser.

A sum over sites takes a function of a site's number, so that what a site sends need not be held
beside that of the others: in sequence, the memory does not grow with the number of sites.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gxdistill import _check
from gxdistill.pytrees import Params

# `(of_site, sites) -> the sum of of_site(i), a pytree, over the sites i`
SumSites = Callable[[Callable[[jax.Array], Any], int], Any]
# `(updates, joined) -> mean`: each leaf `[n, ...]`, and who took part, `[n]` bool.
RobustMean = Callable[[Params, jax.Array], Params]

SITE = "site"  # The mesh's axis.
SERVERS = ("sgd", "momentum", "adam")


def in_sequence(of_site: Callable[[jax.Array], Any], sites: int) -> Any:
    """Adds up what the sites send, one after another: memory for one of them.

    Args:
      of_site: gives a pytree of arrays for a site's number, a traced int32.
      sites: n.
    """
    return _sum_of(of_site, jnp.arange(sites))


def over_mesh(mesh: jax.sharding.Mesh) -> SumSites:
    """Builds the sum in which each device takes as many sites, one after another.

    Args:
      mesh: of one axis, "site".

    Returns:
      The sum, which every device has.
    """
    (axis,) = mesh.axis_names

    def total(of_site: Callable[[jax.Array], Any], sites: int) -> Any:
        if sites % mesh.size:
            raise ValueError(
                f"{mesh.size} devices cannot share {sites} sites evenly. Pass a mesh of another "
                f"size, or take the sites in sequence."
            )

        def share(rows: jax.Array) -> Any:
            return jax.lax.psum(_sum_of(of_site, rows), axis)

        specs = jax.sharding.PartitionSpec(axis), jax.sharding.PartitionSpec()
        shared = jax.shard_map(
            share, mesh=mesh, in_specs=specs[0], out_specs=specs[1], check_vma=False
        )
        return shared(jnp.arange(sites))

    return total


def _sum_of(of_site: Callable[[jax.Array], Any], rows: jax.Array) -> Any:
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(of_site, rows[0]))

    def add(total: Any, site: jax.Array) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, of_site(site)), None

    return jax.lax.scan(add, zero, rows)[0]


def stacked(of_site: Callable[[jax.Array], Any], sites: int) -> Any:
    """Holds what all sites send, each leaf with a leading axis of them: memory for all."""
    return jax.lax.map(of_site, jnp.arange(sites))


def trimmed_mean(updates: Params, joined: jax.Array, share: float) -> Params:
    """Averages each coordinate without its largest and smallest values.

    Of m sites that took part, the floor(share * m) largest and as many smallest are left out; so
    many sites may send anything. Yin et al. 2018, https://arxiv.org/abs/1803.01498.

    Args:
      updates: each leaf `[n, ...]`.
      joined: who took part, `[n]` bool, at least one.
      share: left out at each end, at least 0 and below .5.

    Returns:
      The mean, each leaf without its leading axis.

    Raises:
      ValueError: `share` is out of range.
    """
    if not 0 <= share < 0.5:
        raise ValueError(f"`share` is {share}; it must be at least 0 and below 0.5.")
    count = joined.sum()
    cut = jnp.floor(share * count).astype(jnp.int32)
    return _mean_of_ranks(updates, joined, cut, count - cut)


def median(updates: Params, joined: jax.Array) -> Params:
    """Takes each coordinate's median, of an even number of sites the mean of the middle two.

    Args:
      updates: each leaf `[n, ...]`.
      joined: who took part, `[n]` bool, at least one.

    Returns:
      The median, each leaf without its leading axis.
    """
    count = joined.sum()
    return _mean_of_ranks(updates, joined, (count - 1) // 2, count // 2 + 1)


def _mean_of_ranks(updates: Params, joined: jax.Array, low: jax.Array, high: jax.Array) -> Params:
    """Averages the ranks from `low` to below `high` of those who joined, by coordinate."""

    def mean(leaf: jax.Array) -> jax.Array:
        each = (-1,) + (1,) * (leaf.ndim - 1)
        ranked = jnp.sort(jnp.where(joined.reshape(each), leaf, jnp.inf), axis=0)
        rank = jnp.arange(len(leaf)).reshape(each)
        kept = (low <= rank) & (rank < high)
        return jnp.sum(jnp.where(kept, ranked, 0), axis=0) / jnp.maximum(high - low, 1)

    return jax.tree.map(mean, updates)


def server_optimizer(name: str, lr: float, momentum: float = 0.9) -> optax.GradientTransformation:
    """Makes the optimiser that takes the mean of the sites' updates, negated, for a gradient.

    Args:
      name: "sgd", with rate 1 the plain FedAvg of McMahan et al. 2017,
        https://arxiv.org/abs/1602.05629; "momentum", FedAvgM of Hsu et al. 2019,
        https://arxiv.org/abs/1909.06335; "adam", FedAdam of Reddi et al. 2021,
        https://arxiv.org/abs/2003.00295, with the betas (.9, .99) and tau .001 of that paper.
      lr: its rate.
      momentum: of "momentum".

    Returns:
      The transformation.

    Raises:
      ValueError: the name is unknown, or the rate not positive.
    """
    _check.one_of("server", name, SERVERS)
    _check.positive(lr=lr)
    if name == "adam":
        return optax.adam(lr, b1=0.9, b2=0.99, eps=1e-3)
    return optax.sgd(lr, momentum=momentum if name == "momentum" else None)
