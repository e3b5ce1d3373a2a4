"""Which inner steps are differentiated: ways to train weights on distilled data for an outer step.

What comes before a window is gone through by a loop that keeps nothing, whatever its length, and
counts as fixed. The loss on real data is taken at the window's end.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from gxdistill import _check
from gxdistill.distill.inner import Carry, Step
from gxdistill.distill.losses import InnerLoss
from gxdistill.distill.memory import differentiable, run
from gxdistill.distill.unroll import PLAIN, Training, begin, unroll
from gxdistill.pytrees import Distilled, Params

InnerLoop = Callable[[InnerLoss, Params, Distilled, jax.Array], Params]

# `(step, carry, data, last, key) -> (carry, first)`: trains up to the window, which is to start at
# one of the steps from 0 to `last`.
_Reach = Callable[[Step, Carry, Distilled, int, jax.Array], tuple[Carry, int | jax.Array]]


def full(training: Training = PLAIN) -> InnerLoop:
    """Differentiates all T steps."""
    return lambda loss, params, data, _: unroll(loss, params, data, training)


def fixed_window(length: int, training: Training = PLAIN) -> InnerLoop:
    """Differentiates the last `length` of T steps."""

    def reach(
        step: Step, carry: Carry, data: Distilled, last: int, _: jax.Array
    ) -> tuple[Carry, int]:
        return run(step, carry, data, 0, last), last

    return _window(length, reach, training)


def random_window(length: int, training: Training = PLAIN) -> InnerLoop:
    """Differentiates `length` steps, up to one drawn from all T, and trains no further.

    RaT-BPTT, Feng et al. 2023, https://arxiv.org/abs/2311.07025.
    """

    def reach(
        step: Step, carry: Carry, data: Distilled, last: int, key: jax.Array
    ) -> tuple[Carry, jax.Array]:
        first = jax.random.randint(key, (), 0, last + 1)
        return run(step, carry, data, 0, first), first

    return _window(length, reach, training)


def adaptive_window(length: int, training: Training = PLAIN) -> InnerLoop:
    """Differentiates `length` steps, more often there where the weights are still being moved.

    The window starts at step t with a probability in proportion to the norm of that step's move
    before the rate, which for SGD is the gradient's: of T steps, few at the end of a training that
    has converged. In the spirit of AT-BPTT, Li et al. 2025, https://arxiv.org/abs/2510.04838; the
    rule is ours. One pass draws it: each candidate in its turn replaces the one before with its
    share of the norms so far (Chao 1982, https://doi.org/10.1093/biomet/69.3.653).
    """

    def reach(
        step: Step, carry: Carry, data: Distilled, last: int, key: jax.Array
    ) -> tuple[Carry, jax.Array]:
        def candidate(t: jax.Array, state: tuple) -> tuple:
            carry, total, chosen = state
            after = run(step, carry, data, t, 1)
            moved = jax.tree.map(jnp.subtract, after[0], carry[0])
            weight = optax.tree.norm(moved) / jnp.exp(data.log_lr[t])
            total += weight
            takes = jax.random.uniform(jax.random.fold_in(key, t)) * total < weight
            chosen = jax.tree.map(lambda a, b: jnp.where(takes, a, b), (carry, t), chosen)
            return after, total, chosen

        first = carry, jnp.zeros(()), (carry, jnp.int32(0))
        return jax.lax.fori_loop(0, last + 1, candidate, first)[2]

    return _window(length, reach, training)


def _window(length: int, reach: _Reach, training: Training) -> InnerLoop:
    _check.positive(length=length)

    def train(loss: InnerLoss, params: Params, data: Distilled, key: jax.Array) -> Params:
        step, carry = begin(loss, params, data, training)
        count = min(length, len(data.log_lr))
        before = jax.lax.stop_gradient((carry, data))
        carry, first = reach(step, *before, len(data.log_lr) - count, key)
        trained, _ = differentiable(step, carry, data, first, count=count, memory=training.memory)
        return trained

    return train
