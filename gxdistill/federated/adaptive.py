"""The bound on updates as a quantile of their norms that is itself private.

Andrew et al. 2021, https://arxiv.org/abs/1905.03871: each site sends, with noise, whether its
update's norm was within the bound C; the bound then moves so that a share gamma of them will be.
"""

import dataclasses

import jax
import jax.numpy as jnp

from gxdistill import _check


@dataclasses.dataclass(frozen=True)
class AdaptiveBound:
    """How the bound follows the norms.

    Attributes:
      quantile: gamma, the share of updates that are to be within the bound.
      rate: eta, of the bound's logarithm.
      bit_noise: sigma_b, standard deviation of the noise on each site's bit.

    Raises:
      ValueError: a number is out of range.
    """

    quantile: float = 0.5
    rate: float = 0.2
    bit_noise: float = 10.0

    def __post_init__(self) -> None:
        """Refuses numbers without a meaning."""
        _check.share(quantile=self.quantile)
        _check.positive(rate=self.rate, bit_noise=self.bit_noise)


def update_noise(noise: float, bit_noise: float) -> float:
    """Returns the noise multiplier of the updates, such that with the bits it costs `noise`.

    A bit less one half is at most 1/2 in size, so that both together are one Gaussian release of
    the multiplier z where z^-2 = z_update^-2 + (2 sigma_b)^-2, theorem 1 of the paper.

    Args:
      noise: z, what the accountant is told.
      bit_noise: sigma_b.

    Raises:
      ValueError: the bits alone cost more than `noise` allows.
    """
    if noise == 0:
        return 0.0
    if 2 * bit_noise <= noise:
        raise ValueError(
            f"`bit_noise` is {bit_noise}: the bits alone tell more than a noise multiplier of "
            f"{noise} allows. Raise it above {noise / 2}."
        )
    return float((noise**-2 - (2 * bit_noise) ** -2) ** -0.5)


def site_bit(norm: jax.Array, bound: jax.Array, noise: jax.Array) -> jax.Array:
    """Makes what a site sends of its norm: whether it is within the bound, less 1/2, with noise.

    Args:
      norm: of the update before it was clipped.
      bound: C.
      noise: a draw of N(0, sigma_b^2).
    """
    return jnp.where(norm <= bound, 0.5, -0.5) + noise


def next_log_bound(log_bound: jax.Array, mean_bit: jax.Array, rule: AdaptiveBound) -> jax.Array:
    """Moves the bound: log C - eta (b - gamma), where b is the share within it as it was told.

    Args:
      log_bound: log C.
      mean_bit: mean over the sites of what `site_bit` made.
      rule: how the bound follows.
    """
    # Noise may tell of a share below none or above all, which among few sites is most of what is
    # told: without this bound on a move, C would walk by e-folds.
    told = jnp.clip(mean_bit + 0.5, 0.0, 1.0)
    return log_bound - rule.rate * (told - rule.quantile)
