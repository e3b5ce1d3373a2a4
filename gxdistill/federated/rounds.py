"""A round of a federation as a pure function, and its two halves: at a site, and at the server.

One process composes the halves (`federation`); over a network each side calls its own.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from gxdistill import _check
from gxdistill.federated.adaptive import AdaptiveBound, next_log_bound, site_bit, update_noise
from gxdistill.federated.aggregation import RobustMean, SumSites, in_sequence, stacked
from gxdistill.federated.local import LocalTraining
from gxdistill.privacy.clipping import clip_by_norm, sensitivity
from gxdistill.privacy.ledger import add_noise
from gxdistill.pytrees import Params
from gxdistill.training.steps import Loop, LoopState, is_finite, stepped

# Folded into a round's key; beyond any number of sites.
_JOIN = 2**32 - 1
# Folded into a site's key of a round.
_TRAIN, _UPDATE_NOISE, _BIT_NOISE = 0, 1, 2

Draw = Callable[[Any, jax.Array, jax.Array], Any]  # `(feed, site, key) -> batch` of a local step


@flax.struct.dataclass
class ServerState:
    """What a server carries beside the weights; the `opt_state` of a `LoopState`.

    Attributes:
      optimizer: the server optimiser's.
      log_bound: scalar, log of the largest norm of an update.
    """

    optimizer: optax.OptState
    log_bound: jax.Array


class Upload(NamedTuple):
    """What a site sends in a round.

    Attributes:
      update: the weights' change, clipped and noised where asked.
      bit: whether its norm was within the bound, see `adaptive`; 0 where the bound is fixed.
      loss: of the local training, for the log of a simulation; a site that protects its patients
        keeps it to itself.
    """

    update: Params
    bit: jax.Array
    loss: jax.Array


@dataclasses.dataclass(frozen=True)
class Protection:
    """Noise on each site's clipped update, before it leaves the site.

    The unit is the site: whether it took part, or sent nothing in all rounds, is what stays hidden,
    also from the server. The accountant is told one Gaussian release a round, of the multiplier
    `noise`: of an update of norm at most C, with noise of standard deviation `noise` * C on every
    coordinate.

    Attributes:
      bound: C, before the first round.
      noise: multiplier; 0 clips alone, and promises nothing.
      adaptive: how C follows the norms; None keeps it.

    Raises:
      ValueError: a number is out of range, or the bits of `adaptive` cost more than `noise` allows.
    """

    bound: float
    noise: float = 0.0
    adaptive: AdaptiveBound | None = None

    def __post_init__(self) -> None:
        """Refuses numbers without a meaning."""
        _check.positive(bound=self.bound)
        if not self.noise >= 0:
            raise ValueError(f"`noise` is {self.noise}; it must not be negative.")
        _ = self.update_noise

    @property
    def update_noise(self) -> float:
        """Multiplier of the noise on the update, where the bits take their part."""
        if self.adaptive is None:
            return self.noise
        return update_noise(self.noise, self.adaptive.bit_noise)


def site_round(
    local: LocalTraining,
    protection: Protection | None,
    params: Params,
    log_bound: jax.Array,
    draw: Callable[[jax.Array], Any],
    *,
    key: jax.Array,
    scale: jax.Array,
) -> Upload:
    """Does a site's half of a round.

    Args:
      local: the training.
      protection: of the update; None sends it as it is.
      params: the server's weights.
      log_bound: of the server's state.
      draw: `key -> batch` of a local step.
      key: of this site in this round; the noise is as secret as it is.
      scale: what the local rate is multiplied by.
    """
    update, loss = local(params, draw, jax.random.fold_in(key, _TRAIN), scale)
    bit = jnp.zeros(())
    if protection is None:
        return Upload(update, bit, loss)
    bound = jnp.exp(log_bound)
    norm = optax.tree.norm(update)
    # In units of the bound, which may move; the noise is added in them, too.
    update = clip_by_norm(jax.tree.map(lambda x: x / bound, update), 1.0)
    if protection.noise:
        noise_key = jax.random.fold_in(key, _UPDATE_NOISE)
        update = add_noise(noise_key, update, protection.update_noise * sensitivity(1.0))
    update = jax.tree.map(lambda x: bound * x, update)
    if protection.adaptive:
        noise = jnp.zeros(())
        if protection.noise:
            noise = jax.random.normal(jax.random.fold_in(key, _BIT_NOISE))
        bit = site_bit(norm, bound, protection.adaptive.bit_noise * noise)
    return Upload(update, bit, loss)


def first_state(
    server: optax.GradientTransformation,
    protection: Protection | None,
    params: Params,
    key: jax.Array,
) -> LoopState:
    """Makes the server's state before the first round.

    Args:
      server: optimiser, see `aggregation.server_optimizer`.
      protection: of the sites.
      params: weights to start from.
      key: of the federation.
    """
    zero = jnp.int32(0)
    log_bound = jnp.log(jnp.float32(protection.bound if protection else 1.0))
    opt_state = ServerState(server.init(params), log_bound)
    return LoopState(zero, params, opt_state, key, zero, zero)


def server_round(
    server: optax.GradientTransformation,
    protection: Protection | None,
    state: LoopState,
    mean: Params,
    mean_bit: jax.Array,
) -> LoopState:
    """Does the server's half of a round: a step along the mean of the updates.

    A mean that is not finite is left out, and counted as skipped.

    Args:
      server: optimiser, see `aggregation.server_optimizer`.
      protection: of the sites.
      state: before the round.
      mean: of the sites' updates.
      mean_bit: of their bits.

    Returns:
      The state after the round.
    """
    before: ServerState = state.opt_state
    grads = jax.tree.map(jnp.negative, mean)
    moves, optimizer = server.update(grads, before.optimizer, state.learned)
    log_bound = before.log_bound
    if protection and protection.adaptive:
        log_bound = next_log_bound(log_bound, mean_bit, protection.adaptive)
    learned = optax.apply_updates(state.learned, moves)
    return stepped(state, learned, ServerState(optimizer, log_bound), is_finite((mean, mean_bit)))


def site_key(key: jax.Array, number: jax.Array | int, site: jax.Array | int) -> jax.Array:
    """Derives the key of a site in a round; resuming repeats none.

    Args:
      key: of the federation.
      number: of the round.
      site: number of the site.
    """
    return jax.random.fold_in(jax.random.fold_in(key, number), site)


def draw_joins(
    key: jax.Array, number: jax.Array | int, sites: int, participation: float
) -> jax.Array:
    """Draws who takes part in a round, `[sites]` bool.

    Args:
      key: of the federation.
      number: of the round.
      sites: how many there are.
      participation: chance of each.
    """
    return jax.random.bernoulli(site_key(key, number, _JOIN), participation, (sites,))


def mean_of_uploads(
    uploads: Sequence[Upload], weights: Sequence[float], robust: RobustMean | None = None
) -> Upload:
    """Averages what came from sites over a network, as `federation` does what it computes.

    Args:
      uploads: of the sites that sent one, at least one.
      weights: of these sites.
      robust: replaces the weighted mean of the updates.

    Returns:
      The mean update, bit and loss.
    """
    shares = _checked(np.asarray(weights), 1.0)
    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *uploads)
    joined = jnp.ones(len(shares), bool)
    if robust is not None:
        mean, loss = robust(together.update, joined), _mean_of(together.loss, joined)
        return Upload(mean, _mean_of(together.bit, joined), loss)

    def send(site: jax.Array) -> tuple[Upload, jax.Array]:
        return jax.tree.map(lambda leaf: leaf[site], together), joined[site]

    return Upload(*_weighted_mean(send, shares, in_sequence))


def federation(
    local: LocalTraining,
    draw: Draw,
    weights: np.ndarray,
    *,
    server: optax.GradientTransformation,
    rate: Callable[[jax.Array], jax.Array] = lambda _: jnp.ones(()),
    participation: float = 1.0,
    protection: Protection | None = None,
    sum_sites: SumSites = in_sequence,
    robust: RobustMean | None = None,
) -> Loop:
    """Builds the loop of rounds; a round is a step of it.

    Each site trains from the server's weights; its update is clipped and noised where asked; the
    server takes their weighted mean. A site whose update is not finite is left out of the round.

    Args:
      local: a site's training.
      draw: `(feed, site, key) -> batch` of a local step.
      weights: of the sites in the mean, `[n]`, as their numbers of patients.
      server: optimiser of the server.
      rate: of a round's number, what the local rate is multiplied by.
      participation: chance of each site, in each round, to take part.
      protection: of the sites; None for none.
      sum_sites: one of `aggregation`.
      robust: replaces the weighted mean, holding the updates of all sites; all weigh the same.

    Returns:
      The loop; its `update` takes the feed for a batch, and returns beside the state the mean of
      the sites' losses. A round that no site took part in is skipped.

    Raises:
      ValueError: a number is out of range, or noise is to go with a robust mean.
    """
    shares = _checked(weights, participation)
    if robust is not None and protection is not None and protection.noise:
        raise ValueError(
            "`robust` and a `protection` with noise: of noise, a robust mean keeps the most. "
            "Leave one out."
        )

    def update(state: LoopState, feed: Any) -> tuple[LoopState, jax.Array]:
        joins = draw_joins(state.key, state.step, len(shares), participation)
        scale = rate(state.step)

        def upload_of(site: jax.Array) -> Upload:
            return site_round(
                local,
                protection,
                state.learned,
                state.opt_state.log_bound,
                lambda draw_key: draw(feed, site, draw_key),
                key=site_key(state.key, state.step, site),
                scale=scale,
            )

        def send(site: jax.Array) -> tuple[Upload, jax.Array]:
            upload = jax.lax.cond(joins[site], upload_of, partial(_nothing, upload_of), site)
            sound = is_finite(upload)
            return jax.tree.map(lambda x: jnp.where(sound, x, 0), upload), joins[site] & sound

        if robust is None:
            mean, bit, loss = _weighted_mean(send, shares, sum_sites)
        else:
            uploads, joined = stacked(send, len(shares))
            mean, bit = robust(uploads.update, joined), _mean_of(uploads.bit, joined)
            loss = _mean_of(uploads.loss, joined)
        return server_round(server, protection, state, mean, bit), loss

    return Loop(partial(first_state, server, protection), update)


def _checked(weights: np.ndarray, participation: float) -> jax.Array:
    weights = np.asarray(weights, float)
    if weights.ndim != 1 or not len(weights) or not (weights > 0).all():
        raise ValueError(f"`weights` is {weights}; each of the sites needs one above 0.")
    _check.share(participation=participation)
    _check.positive(participation=participation)
    return jnp.asarray(weights / weights.max(), jnp.float32)


def _nothing(upload_of: Callable[[jax.Array], Upload], site: jax.Array) -> Upload:
    like = jax.eval_shape(upload_of, site)
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)


def _mean_of(values: jax.Array, joined: jax.Array) -> jax.Array:
    return jnp.sum(values * joined) / joined.sum()


def _weighted_mean(
    send: Callable[[jax.Array], tuple[Upload, jax.Array]], shares: jax.Array, sum_sites: SumSites
) -> tuple[Params, jax.Array, jax.Array]:
    """Averages what the sites send; not a number where none took part."""

    def weighed(site: jax.Array) -> tuple[Upload, jax.Array, jax.Array]:
        (update, bit, loss), joined = send(site)
        weight = shares[site] * joined
        scaled = jax.tree.map(lambda x: weight * x, update)
        return Upload(scaled, bit, weight * loss), weight, joined.astype(jnp.float32)

    total, weight, count = sum_sites(weighed, len(shares))
    mean = jax.tree.map(lambda x: x / weight, total.update)
    return mean, total.bit / count, total.loss / weight
