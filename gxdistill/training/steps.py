"""A loop of steps as a pair of pure functions: what is learned, its gradient and an optimizer."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax

from gxdistill.pytrees import Batch, Params

# `(learned, key, batch) -> (loss, gradients)`; `key` is of the step.
Gradient = Callable[[Params, jax.Array, Batch], tuple[jax.Array, Params]]

# Folded in before the step, and no step's number, so that no batch shares a key with what else a
# step draws: `split(key, n)[i]` is `fold_in(key, i)`.
_DRAWS = 2**32 - 1


@flax.struct.dataclass
class LoopState:
    """All that a loop carries; what a checkpoint holds.

    Attributes:
      step: scalar int32, steps done.
      learned: what is learned.
      opt_state: the optimizer's.
      key: typed PRNG key of the run; never changes, steps fold into it.
      skipped: scalar int32, steps whose gradient was not finite and was left out.
      skipped_in_a_row: scalar int32, those of them since the last step that was not.
    """

    step: jax.Array
    learned: Params
    opt_state: optax.OptState
    key: jax.Array
    skipped: jax.Array
    skipped_in_a_row: jax.Array


class Loop(NamedTuple):
    """A loop.

    Attributes:
      init: `(learned, key) -> state`.
      update: `(state, batch) -> (state, loss)`, one step; jit-able.
    """

    init: Callable[[Params, jax.Array], LoopState]
    update: Callable[[LoopState, Batch], tuple[LoopState, jax.Array]]


def loop(gradient: Gradient, optimizer: optax.GradientTransformation) -> Loop:
    """Builds a loop of steps.

    Args:
      gradient: `(learned, key, batch) -> (loss, gradients)`.
      optimizer: updates what is learned.

    Returns:
      The pair of functions.

    Example:
      steps = loop(lambda w, key, batch: jax.value_and_grad(loss)(w, batch), optax.adam(1e-3))
      state, value = jax.jit(steps.update)(steps.init(weights, jax.random.key(0)), batch)
    """

    def init(learned: Params, key: jax.Array) -> LoopState:
        zero = jnp.int32(0)
        return LoopState(zero, learned, optimizer.init(learned), key, zero, zero)

    def update(state: LoopState, batch: Batch) -> tuple[LoopState, jax.Array]:
        key = jax.random.fold_in(state.key, state.step)  # resuming repeats no key
        loss, grads = gradient(state.learned, key, batch)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.learned)
        moved = optax.apply_updates(state.learned, updates), opt_state
        return stepped(state, *moved, is_finite((loss, grads))), loss

    return Loop(init, update)


def is_finite(tree: Params) -> jax.Array:
    """Tells whether all numbers of a tree are finite: scalar bool."""
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def stepped(
    state: LoopState, learned: Params, opt_state: optax.OptState, finite: jax.Array
) -> LoopState:
    """Ends a step: a step that diverged teaches nothing, and one NaN would end the run.

    Args:
      state: before the step.
      learned: what is learned, after it.
      opt_state: the optimizer's, after it.
      finite: whether its gradient was, scalar bool; else the step is left out, and counted.

    Returns:
      The state after the step.
    """
    moved, stayed = (learned, opt_state), (state.learned, state.opt_state)
    learned, opt_state = jax.tree.map(lambda a, b: jnp.where(finite, a, b), moved, stayed)
    return dataclasses.replace(
        state,
        step=state.step + 1,
        learned=learned,
        opt_state=opt_state,
        skipped=state.skipped + ~finite,
        skipped_in_a_row=jnp.where(finite, 0, state.skipped_in_a_row + 1),
    )


def draws_key(key: jax.Array) -> jax.Array:
    """Derives from a run's key the one of its draws, of which each step folds its own."""
    return jax.random.fold_in(key, _DRAWS)


def several_steps(
    loop: Loop, draw: Callable[[Any, jax.Array], Batch], count: int
) -> Callable[[LoopState, Any], tuple[LoopState, jax.Array]]:
    """Makes `count` steps one call, so that Python and the dispatch cost nothing.

    Args:
      loop: the pair of functions.
      draw: `(feed, key) -> Batch`, gathers a real batch on the device.
      count: number of steps.

    Returns:
      `(state, feed) -> (state, losses [count])`, to be jitted.
    """

    def call(state: LoopState, feed: Any) -> tuple[LoopState, jax.Array]:
        def step(state: LoopState, _: None) -> tuple[LoopState, jax.Array]:
            key = jax.random.fold_in(draws_key(state.key), state.step)
            return loop.update(state, draw(feed, key))

        return jax.lax.scan(step, state, None, length=count)

    return call
