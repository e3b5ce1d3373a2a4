"""Inner optimisers: how a gradient of the inner loss becomes a move of the weights.

Their state is part of what the unroll carries, so the meta-gradient goes through it. All leaves are
float, for a cotangent belongs to each.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gxdistill import _check
from gxdistill.distill.losses import InnerLoss
from gxdistill.pytrees import Distilled, Params

State = Any  # A pytree of float arrays.
Carry = tuple[Params, State]
Step = Callable[[Carry, Distilled], Carry]


class Inner(NamedTuple):
    """An optimiser without its rate, which the distilled data brings along.

    Attributes:
      init: `params -> state`.
      update: `(grads, state) -> (moves, state)`; the weights go by `- rate * moves`.
    """

    init: Callable[[Params], State]
    update: Callable[[Params, State], tuple[Params, State]]


def sgd() -> Inner:
    """Plain gradient descent: no state."""
    return Inner(lambda _: (), lambda grads, state: (grads, state))


def momentum(decay: float = 0.9) -> Inner:
    """Heavy-ball momentum: m[t+1] = decay m[t] + g[t] is the move; Polyak 1964."""
    _check.share(decay=decay)

    def update(grads: Params, trace: State) -> tuple[Params, State]:
        trace = jax.tree.map(lambda m, g: decay * m + g, trace, grads)
        return trace, trace

    return Inner(lambda params: jax.tree.map(jnp.zeros_like, params), update)


def adam(b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Inner:
    """Adam, Kingma & Ba 2014, https://arxiv.org/abs/1412.6980, with `eps` under the root.

    Beside the root, the derivative at a gradient of 0, which a dead unit has, would be infinite.

    Args:
      b1: decay of the mean gradient.
      b2: decay of the mean squared gradient.
      eps: added to the mean squared gradient.
    """
    _check.share(b1=b1, b2=b2)
    _check.positive(eps=eps)

    def init(params: Params) -> State:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return zeros, zeros, jnp.ones(2)

    def update(grads: Params, state: State) -> tuple[Params, State]:
        mean, square, (p1, p2) = state
        mean = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, mean, grads)
        square = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g**2, square, grads)
        p1, p2 = b1 * p1, b2 * p2  # b^t: what the zeros at the start still weigh
        moves = jax.tree.map(
            lambda m, v: m / (1 - p1) * jax.lax.rsqrt(v / (1 - p2) + eps), mean, square
        )
        return moves, (mean, square, jnp.stack([p1, p2]))

    return Inner(init, update)


OPTIMIZERS: dict[str, Callable[[], Inner]] = {"sgd": sgd, "momentum": momentum, "adam": adam}


def inner_step(loss: InnerLoss, inner: Inner) -> Step:
    """Builds one inner step: `(carry, batch) -> carry`, the batch `Distilled` without its axis."""

    def step(carry: Carry, batch: Distilled) -> Carry:
        params, state = carry
        grads = jax.grad(loss)(params, batch.images, batch.labels)
        moves, state = inner.update(grads, state)
        lr = jnp.exp(batch.log_lr)
        return jax.tree.map(lambda p, m: p - lr * m, params, moves), state

    return step
