"""Inner optimisers: how one step moves the weights, and how a cotangent goes back through it.

The gradient of a gradient is taken forward over reverse: for a direction v,
grad_(p, x, y) <grad_p loss(p, x, y), v> is the gradient of the loss's derivative along v, which
costs one sweep less than JAX's own reverse over reverse, and holds less.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gxdistill import _check
from gxdistill.distill.losses import InnerLoss
from gxdistill.pytrees import Distilled, Params

State = Any  # A pytree of float arrays: a cotangent belongs to each.
Carry = tuple[Params, State]
Step = Callable[[Carry, Distilled], Carry]
Update = Callable[[Params, State], tuple[Params, State]]


class Inner(NamedTuple):
    """An inner optimiser without its rate, which the distilled data bring along.

    Attributes:
      init: `params -> state`.
      step: `loss -> step`; a step is `(carry, batch) -> carry`, the carry `(params, state)` and the
        batch a `Distilled` without its leading axis.
    """

    init: Callable[[Params], State]
    step: Callable[[InnerLoss], Step]


# Compiled programs belong to the object: the same constants give the same one.
@cache
def sgd() -> Inner:
    """Plain gradient descent: no state."""
    return Inner(lambda _: (), _descent)


@cache
def momentum(decay: float = 0.9) -> Inner:
    """Heavy-ball momentum, Polyak 1964: the move is m[t+1] = decay m[t] + g[t]."""
    _check.share(decay=decay)

    def update(grads: Params, trace: State) -> tuple[Params, State]:
        trace = jax.tree.map(lambda m, g: decay * m + g, trace, grads)
        return trace, trace

    return Inner(lambda params: jax.tree.map(jnp.zeros_like, params), partial(_by_moves, update))


@cache
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

    return Inner(init, partial(_by_moves, update))


OPTIMIZERS: dict[str, Callable[..., Inner]] = {"sgd": sgd, "momentum": momentum, "adam": adam}
# Moves that are as long whatever the gradient's scale: the rates suit networks of other kinds, too.
SCALE_FREE = frozenset({"adam"})


def create(name: str, **constants: float) -> Inner:
    """Creates an inner optimiser by its name, as the manifest of a package tells it.

    Raises:
      ValueError: the name is unknown, or a constant out of range.
    """
    _check.one_of("inner", name, tuple(OPTIMIZERS))
    return OPTIMIZERS[name](**constants)


def _along(
    loss: InnerLoss, v: Params, p: Params, x: jax.Array, y: jax.Array
) -> tuple[jax.Array, tuple[Params, jax.Array, jax.Array]]:
    """Computes <grad_p loss(p, x, y), v> and its gradient for p, x and y."""

    def forwards(p: Params, x: jax.Array, y: jax.Array) -> jax.Array:
        return jax.jvp(lambda p: loss(p, x, y), (p,), (v,))[1]

    def backwards(p: Params, x: jax.Array, y: jax.Array) -> jax.Array:
        return optax.tree.vdot(jax.grad(loss)(p, x, y), v)

    try:
        return jax.value_and_grad(forwards, argnums=(0, 1, 2))(p, x, y)
    except NotImplementedError:  # A `jax.custom_vjp` within the loss knows no forward mode.
        return jax.value_and_grad(backwards, argnums=(0, 1, 2))(p, x, y)


def _descent(loss: InnerLoss) -> Step:
    """Steps by p - lr grad loss(p), whose way back does not ask for the gradient again."""

    @jax.custom_vjp
    def step(carry: Carry, batch: Distilled) -> Carry:
        params, _ = carry
        grads = jax.grad(loss)(params, batch.images, batch.labels)
        lr = jnp.exp(batch.log_lr)
        return jax.tree.map(lambda p, g: p - lr * g, params, grads), ()

    def forward(carry: Carry, batch: Distilled) -> tuple[Carry, Any]:
        return step(carry, batch), (carry[0], batch)

    def backward(saved: Any, by_carry: Carry) -> tuple[Carry, Distilled]:
        (params, batch), (v, _) = saved, by_carry
        value, seconds = _along(loss, v, params, batch.images, batch.labels)
        by_params, by_images, by_labels = seconds
        lr = jnp.exp(batch.log_lr)
        by_params = jax.tree.map(lambda v, h: v - lr * h, v, by_params)
        return (by_params, ()), Distilled(-lr * by_images, -lr * by_labels, -lr * value)

    step.defvjp(forward, backward)
    return step


def _by_moves(update: Update, loss: InnerLoss) -> Step:
    """Steps by p - lr move, where `update` makes the move of gradient and state."""

    @jax.custom_vjp
    def gradient(params: Params, images: jax.Array, labels: jax.Array) -> Params:
        return jax.grad(loss)(params, images, labels)

    def forward(*arguments: Any) -> tuple[Params, Any]:
        return gradient(*arguments), arguments

    def backward(arguments: Any, v: Params) -> tuple[Params, jax.Array, jax.Array]:
        return _along(loss, v, *arguments)[1]

    gradient.defvjp(forward, backward)

    def step(carry: Carry, batch: Distilled) -> Carry:
        params, state = carry
        moves, state = update(gradient(params, batch.images, batch.labels), state)
        lr = jnp.exp(batch.log_lr)
        return jax.tree.map(lambda p, m: p - lr * m, params, moves), state

    return step
