"""The masked sum as one of `aggregation`: a simulation in which the real protocol runs."""

import secrets
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from gxdistill.errors import UserError
from gxdistill.federated.aggregation import SumSites, stacked
from gxdistill.federated.fixed_point import FixedPoint
from gxdistill.federated.secure_aggregation import masked_sum


def masked(bound: float, threshold: int, log: Callable[[str], None]) -> SumSites:
    """Builds a sum that goes through fixed point and masks, in this process.

    The masks cancel exactly, so that the sum does not depend on what they were: it is that of the
    rounded numbers, bit for bit the same in a resumed run. It holds what all sites send.

    Args:
      bound: largest size of a number that a site sends.
      threshold: number of sites that must be left at the end of a round, see `secure_aggregation`.
      log: told why a round is refused, which gives NaN in place of the sum.
    """

    def total(of_site: Callable[[jax.Array], Any], sites: int) -> Any:
        form = FixedPoint(sites, bound)
        sent = stacked(of_site, sites)
        rows = jax.vmap(lambda tree: ravel_pytree(tree)[0])(sent)
        _, restore = ravel_pytree(jax.tree.map(lambda x: x[0], sent))

        def add(rows: np.ndarray) -> np.ndarray:
            try:
                encoded = {site: form.encode(row) for site, row in enumerate(np.asarray(rows))}
                name = secrets.token_bytes(16)
                told = form.decode(masked_sum(encoded, threshold=threshold, round_name=name))
            except (UserError, ValueError) as error:
                log(f"a round is refused: {error}")
                told = np.full(rows.shape[1], np.nan)
            return told.astype(np.float32)

        result = jax.ShapeDtypeStruct(rows.shape[1:], jnp.float32)
        return restore(jax.pure_callback(add, result, rows))

    return total
