"""The receiving side: replays distilled data into networks, without any real image."""

from functools import partial

import jax
import jax.numpy as jnp

from gxdistill.distill.inner import Inner
from gxdistill.distill.losses import inner_loss
from gxdistill.distill.unroll import PLAIN, Training, unroll
from gxdistill.errors import UserError
from gxdistill.pytrees import Distilled, Network, Params


@partial(jax.jit, static_argnames=("network", "rule", "inner"))
def replay(
    network: Network,
    params: Params,
    distilled: Distilled,
    *,
    rule: str,
    inner: Inner = PLAIN.inner,
) -> Params:
    """Trains weights on distilled data, in its order and at its rates.

    Args:
      network: whose weights they are.
      params: the weights to start from.
      distilled: S batches and T rates.
      rule: how labels are read, see `distill.init.start`.
      inner: the optimiser; plain SGD by default.

    Returns:
      The trained weights.
    """
    return unroll(inner_loss(network, rule), params, distilled, Training(inner))


def replay_many(
    network: Network,
    keys: jax.Array,
    distilled: Distilled,
    *,
    rule: str,
    inner: Inner = PLAIN.inner,
) -> Params:
    """Trains one fresh network for each key.

    Args:
      network: what is trained.
      keys: typed PRNG keys, `[R]`.
      distilled: S batches and T rates.
      rule: see `replay`.
      inner: see `replay`.

    Returns:
      The trained weights, each leaf with a leading axis R.

    Raises:
      UserError: a network diverged.
    """
    trained = [
        replay(network, network.init(key), distilled, rule=rule, inner=inner) for key in keys
    ]
    check_finite(trained)
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trained)


def check_finite(trained: list[Params]) -> None:
    """Refuses weights that are not finite.

    Raises:
      UserError: naming the network.
    """
    for i, params in enumerate(trained):
        if not all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(params)):
            raise UserError(
                f"Training network {i + 1} of {len(trained)} on the distilled data diverged: its "
                f"weights are not finite. Use the network that the package names, or distil it "
                f"with a random init."
            )
