"""Sites that share gradients of what is learned, not weights that they trained: one step a round.

So each step's noise can be shared out among the sites, and distilled data be learned together.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gxdistill import _check
from gxdistill.federated.aggregation import SumSites, in_sequence
from gxdistill.privacy.clipping import sensitivity
from gxdistill.privacy.ledger import add_noise
from gxdistill.pytrees import Params
from gxdistill.training.steps import Gradient

# `(learned, key, feed, site) -> (loss, gradients)` of a site's own patients
SiteGradient = Callable[[Params, jax.Array, Any, jax.Array], tuple[jax.Array, Params]]


def weighted_gradient(
    of_site: SiteGradient, weights: np.ndarray, sum_sites: SumSites = in_sequence
) -> Gradient:
    """Averages the sites' gradients; each is told the same key, as the server sends it.

    Args:
      of_site: a site's mean gradient.
      weights: of the sites, `[n]`, as their numbers of patients.
      sum_sites: one of `aggregation`.

    Returns:
      `(learned, key, feed) -> (loss, gradients)`.
    """
    shares = jnp.asarray(weights / np.sum(weights), jnp.float32)

    def gradient(learned: Params, key: jax.Array, feed: Any) -> tuple[jax.Array, Params]:
        def weighed(site: jax.Array) -> tuple[jax.Array, Params]:
            return jax.tree.map(lambda x: shares[site] * x, of_site(learned, key, feed, site))

        return sum_sites(weighed, len(shares))

    return gradient


def private_gradient(
    of_site: SiteGradient,
    sites: int,
    *,
    noise: float,
    bound: float,
    expected: float,
    honest: int,
    sum_sites: SumSites = in_sequence,
) -> Gradient:
    """Makes of the sites' sums of clipped parts one private gradient: the noise is shared.

    Each site adds noise of variance (noise * bound)^2 / honest to its sum; the sum over the sites,
    of which the server sees no part where `sum_sites` masks them, has the whole noise as soon as
    `honest` sites added theirs and keep it to themselves. Goryczka & Xiong 2017,
    https://doi.org/10.1109/TDSC.2015.2484326; Kairouz et al. 2021, https://arxiv.org/abs/2102.06387.

    Args:
      of_site: a site's *sum* over a Poisson sample of its patients of their clipped parts,
        gradients or the like, and the sum of their losses.
      sites: n.
      noise: multiplier, of the sum over all sites.
      bound: C, what one patient can change that sum by.
      expected: number of patients in all samples together, as expected: a constant.
      honest: sites whose noise is counted on; others may drop out, or tell the server theirs.
      sum_sites: one of `aggregation`.

    Returns:
      `(learned, key, feed) -> (loss, gradients)`, means over `expected` patients. The loss has no
      noise: it is for the log of a simulation.

    Raises:
      ValueError: a number is out of range.
    """
    _check.positive(sites=sites, bound=bound, expected=expected, honest=honest)
    if not noise >= 0 or honest > sites:
        raise ValueError(
            f"`noise` is {noise}, `honest` {honest} of {sites} sites: the noise must not be "
            f"negative, nor more sites be counted on than there are."
        )
    part = noise * sensitivity(bound) / honest**0.5

    def gradient(learned: Params, key: jax.Array, feed: Any) -> tuple[jax.Array, Params]:
        def noised(site: jax.Array) -> tuple[jax.Array, Params]:
            sample_key, noise_key = jax.random.split(jax.random.fold_in(key, site))
            loss, total = of_site(learned, sample_key, feed, site)
            return loss, add_noise(noise_key, total, part)

        return jax.tree.map(lambda x: x / expected, sum_sites(noised, sites))

    return gradient
