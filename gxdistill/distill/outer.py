"""The outer loop: a pair of pure functions that learns distilled data with any meta-gradient."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import flax.struct
import jax
import jax.numpy as jnp
import optax

from gxdistill import _check
from gxdistill.distill.meta_gradient import MetaGradient
from gxdistill.pytrees import Batch, Distilled, Params

Feed = TypeVar("Feed")

# Folded in before the step, and no step's number, so that no batch shares a key with the networks
# of a step: `split(key, n)[i]` is `fold_in(key, i)`.
_DRAWS = 2**32 - 1


@flax.struct.dataclass
class DistillState:
    """All that an outer loop carries; what a checkpoint holds.

    Attributes:
      step: scalar int32, outer steps done.
      distilled: what is learned.
      opt_state: the optimiser's.
      key: typed PRNG key of the run; never changes, steps fold into it.
      skipped: scalar int32, steps whose meta-gradient was not finite and was left out.
      skipped_in_a_row: scalar int32, those of them since the last step that was not.
    """

    step: jax.Array
    distilled: Distilled
    opt_state: optax.OptState
    key: jax.Array
    skipped: jax.Array
    skipped_in_a_row: jax.Array


class Distiller(NamedTuple):
    """An outer loop.

    Attributes:
      init: `(distilled, key) -> state`.
      update: `(state, batch) -> (state, loss)`, one outer step; jit-able.
    """

    init: Callable[[Distilled, jax.Array], DistillState]
    update: Callable[[DistillState, Batch], tuple[DistillState, jax.Array]]


def distiller(meta_gradient: MetaGradient, optimizer: optax.GradientTransformation) -> Distiller:
    """Builds the outer loop; the variants of the method differ only in `meta_gradient`.

    Args:
      meta_gradient: `(distilled, key, batch) -> (loss, grads)`.
      optimizer: updates the distilled data, see `optimizer`.

    Returns:
      The pair of functions.
    """

    def init(distilled: Distilled, key: jax.Array) -> DistillState:
        zero = jnp.int32(0)
        return DistillState(zero, distilled, optimizer.init(distilled), key, zero, zero)

    def update(state: DistillState, batch: Batch) -> tuple[DistillState, jax.Array]:
        key = jax.random.fold_in(state.key, state.step)  # resuming repeats no key
        loss, grads = meta_gradient(state.distilled, key, batch)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.distilled)
        moved = optax.apply_updates(state.distilled, updates), opt_state
        # A step whose inner training diverged teaches nothing, and one NaN would end the run.
        leaves = jax.tree.leaves((loss, grads))
        finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]).all()
        stayed = state.distilled, state.opt_state
        distilled, opt_state = jax.tree.map(lambda a, b: jnp.where(finite, a, b), moved, stayed)
        state = dataclasses.replace(
            state,
            step=state.step + 1,
            distilled=distilled,
            opt_state=opt_state,
            skipped=state.skipped + ~finite,
            skipped_in_a_row=jnp.where(finite, 0, state.skipped_in_a_row + 1),
        )
        return state, loss

    return Distiller(init, update)


def optimizer(
    outer_steps: int,
    *,
    images_lr: float,
    labels_lr: float,
    rates_lr: float,
    clip: float = 1.0,
    ema_clip: float = 0.0,
    warmup: int = 0,
    rule: str = "raw",
) -> optax.GradientTransformation:
    """Adam with clipped meta-gradients and a cosine schedule, one rate for each kind of data.

    Args:
      outer_steps: length of the schedule.
      images_lr: peak rate of the images; 0 keeps them as they start.
      labels_lr: of the labels; 0 keeps them as they start.
      rates_lr: of the log learning rates; 0 keeps them as they start.
      clip: largest global norm of a meta-gradient, over what is learned.
      ema_clip: largest norm as a multiple of its running mean, see `clip_by_running_norm`; 0 leaves
        this out.
      warmup: outer steps until the peak.
      rule: how labels are read, see `init.start`; "clipped" keeps them between 0 and 1.

    Returns:
      The transformation; its betas (.5, .999) are those of the base code.

    Raises:
      ValueError: a number is out of range.
    """
    _check.positive(outer_steps=outer_steps, clip=clip)
    peaks = {"images": images_lr, "labels": labels_lr, "rates": rates_lr}
    for name, value in {**peaks, "ema_clip": ema_clip, "warmup": warmup}.items():
        if not value >= 0:
            name = f"{name}_lr" if name in peaks else name
            raise ValueError(f"`{name}` is {value}; it must not be negative.")
    if not any(peaks.values()):
        raise ValueError("All rates are 0: nothing would be learned. Raise one of them.")
    if warmup >= outer_steps:
        raise ValueError(
            f"`warmup` is {warmup}, which leaves none of the {outer_steps} outer steps. Lower it."
        )

    kinds = {name: _adam(peak, outer_steps, warmup) for name, peak in peaks.items()}
    if rule == "clipped":
        kinds["labels"] = optax.chain(kinds["labels"], _keep_between(0, 1))
    # What stays as it starts has no part in the norms.
    learned = {
        name: optax.identity() if peak else optax.set_to_zero() for name, peak in peaks.items()
    }
    return optax.chain(
        _by_kind(learned),
        optax.clip_by_global_norm(clip),
        clip_by_running_norm(ema_clip) if ema_clip else optax.identity(),
        _by_kind(kinds),
    )


def _adam(peak: float, outer_steps: int, warmup: int) -> optax.GradientTransformation:
    if peak == 0:
        return optax.set_to_zero()
    schedule = optax.warmup_cosine_decay_schedule(
        peak if warmup == 0 else 0.0, peak, warmup, outer_steps, end_value=0.01 * peak
    )
    return optax.adam(schedule, b1=0.5, b2=0.999)


def _by_kind(kinds: dict[str, optax.GradientTransformation]) -> optax.GradientTransformation:
    return optax.multi_transform(kinds, Distilled("images", "labels", "rates"))  # type: ignore[arg-type]


def _keep_between(low: float, high: float) -> optax.GradientTransformation:
    """Projects parameters onto an interval after each update."""

    def update(updates: Params, state: Params, params: Params) -> tuple[Params, Params]:
        projected = jax.tree.map(lambda u, p: jnp.clip(p + u, low, high) - p, updates, params)
        return projected, state

    return optax.GradientTransformation(lambda _: optax.EmptyState(), update)


def clip_by_running_norm(multiple: float, decay: float = 0.9) -> optax.GradientTransformation:
    """Clips a gradient's norm to a multiple of its own exponential moving average.

    A meta-gradient's size changes by orders of magnitude over a run, so that no fixed bound fits;
    Feng et al. 2023, https://arxiv.org/abs/2311.07025, there over the images alone.

    Args:
      multiple: largest norm, in units of the average of the clipped norms so far.
      decay: of the average at each step.

    Returns:
      The transformation; the first gradient passes as it is.

    Raises:
      ValueError: `multiple` is not positive, or `decay` lies outside 0 to 1.
    """
    _check.positive(multiple=multiple)
    _check.share(decay=decay)

    def update(updates: Params, average: jax.Array, _: Params = None) -> tuple[Params, jax.Array]:
        norm = optax.tree.norm(updates)
        most = jnp.where(average == 0, norm, multiple * average)
        clipped = jnp.minimum(norm, most)
        factor = jnp.where(norm > most, most / norm, 1)
        average = jnp.where(average == 0, norm, decay * average + (1 - decay) * clipped)
        return jax.tree.map(lambda u: factor * u, updates), average

    return optax.GradientTransformation(lambda _: jnp.zeros(()), update)


def draws_key(key: jax.Array) -> jax.Array:
    """Derives from a run's key the one of its draws, of which each step folds its own."""
    return jax.random.fold_in(key, _DRAWS)


def several_steps(
    loop: Distiller, draw: Callable[[Feed, jax.Array], Batch], count: int
) -> Callable[[DistillState, Feed], tuple[DistillState, jax.Array]]:
    """Makes `count` outer steps one call, so that Python and the dispatch cost nothing.

    Args:
      loop: from `distiller`.
      draw: `(feed, key) -> Batch`, gathers a real batch on the device.
      count: outer steps.

    Returns:
      `(state, feed) -> (state, losses [count])`, to be jitted.
    """

    def call(state: DistillState, feed: Feed) -> tuple[DistillState, jax.Array]:
        def one(state: DistillState, _: None) -> tuple[DistillState, jax.Array]:
            key = jax.random.fold_in(draws_key(state.key), state.step)
            return loop.update(state, draw(feed, key))

        return jax.lax.scan(one, state, None, length=count)

    return call
