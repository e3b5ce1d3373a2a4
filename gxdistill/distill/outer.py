"""The outer loop: a pair of pure functions that learns distilled data with any meta-gradient."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import flax.struct
import jax
import jax.numpy as jnp
import optax

from gxdistill import _check
from gxdistill.distill.meta_gradient import MetaGradient
from gxdistill.pytrees import Batch, Distilled

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
    """

    step: jax.Array
    distilled: Distilled
    opt_state: optax.OptState
    key: jax.Array
    skipped: jax.Array


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
        return DistillState(zero, distilled, optimizer.init(distilled), key, zero)

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
        skipped = state.skipped + ~finite
        return DistillState(state.step + 1, distilled, opt_state, state.key, skipped), loss

    return Distiller(init, update)


def optimizer(
    outer_steps: int,
    *,
    images_lr: float,
    labels_lr: float,
    rates_lr: float,
    clip: float = 1.0,
    warmup: int = 0,
) -> optax.GradientTransformation:
    """Adam with clipped meta-gradients and a cosine schedule, one rate for each kind of data.

    Args:
      outer_steps: length of the schedule.
      images_lr: peak rate of the images.
      labels_lr: of the labels; 0 keeps them as they start.
      rates_lr: of the log learning rates; 0 keeps them as they start.
      clip: largest global norm of a meta-gradient.
      warmup: outer steps until the peak.

    Returns:
      The transformation; its betas (.5, .999) are those of the base code.

    Raises:
      ValueError: a number is out of range.
    """
    _check.positive(outer_steps=outer_steps, images_lr=images_lr, clip=clip)
    for name, value in (("labels_lr", labels_lr), ("rates_lr", rates_lr), ("warmup", warmup)):
        if not value >= 0:
            raise ValueError(f"`{name}` is {value}; it must not be negative.")
    if warmup >= outer_steps:
        raise ValueError(
            f"`warmup` is {warmup}, which leaves none of the {outer_steps} outer steps. Lower it."
        )

    def adam(peak: float) -> optax.GradientTransformation:
        if peak == 0:
            return optax.set_to_zero()
        schedule = optax.warmup_cosine_decay_schedule(
            peak if warmup == 0 else 0.0, peak, warmup, outer_steps, end_value=0.01 * peak
        )
        return optax.adam(schedule, b1=0.5, b2=0.999)

    kinds = {"images": adam(images_lr), "labels": adam(labels_lr), "rates": adam(rates_lr)}
    return optax.chain(
        optax.clip_by_global_norm(clip),
        optax.multi_transform(kinds, Distilled("images", "labels", "rates")),  # type: ignore[arg-type]
    )


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
            key = jax.random.fold_in(jax.random.fold_in(state.key, _DRAWS), state.step)
            return loop.update(state, draw(feed, key))

        return jax.lax.scan(one, state, None, length=count)

    return call
