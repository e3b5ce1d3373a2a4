"""What a site does in a round: some steps of training on its own patients."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gxdistill import _check
from gxdistill.pytrees import Batch, Params
from gxdistill.training.steps import Gradient

# `(params, draw, key, scale) -> (update, loss)`, where `draw(key)` gives the batch of a step, and
# `scale` is what the rate is multiplied by.
LocalTraining = Callable[
    [Params, Callable[[jax.Array], Any], jax.Array, jax.Array], tuple[Params, jax.Array]
]


def mean_gradient(loss: Callable[[Params, Batch], jax.Array]) -> Gradient:
    """Makes the gradient of a loss `(params, batch) -> scalar` that draws nothing at random."""
    value_and_gradient = jax.value_and_grad(loss)
    return lambda params, _, batch: value_and_gradient(params, batch)


def local_training(
    gradient: Gradient,
    optimizer: optax.GradientTransformation,
    steps: int,
    *,
    proximal: float = 0.0,
) -> LocalTraining:
    """Builds the training of a site in one round: it starts from the server's weights.

    Args:
      gradient: `(params, key, batch) -> (loss, gradients)`.
      optimizer: of the steps; it starts anew in every round, for no site keeps a state.
      steps: of a round.
      proximal: mu of FedProx, which adds mu / 2 |w - w_server|^2 to the loss; 0 is FedAvg. Li et
        al. 2020, https://arxiv.org/abs/1812.06127.

    Returns:
      The function; its update is the weights' change, its loss the mean over the steps.

    Raises:
      ValueError: a number is out of range.
    """
    _check.positive(steps=steps)
    if not proximal >= 0:
        raise ValueError(f"`proximal` is {proximal}; it must not be negative.")

    def train(
        params: Params, draw: Callable[[jax.Array], Any], key: jax.Array, scale: jax.Array
    ) -> tuple[Params, jax.Array]:
        def step(carry: tuple[Params, Any], i: jax.Array) -> tuple[tuple[Params, Any], jax.Array]:
            weights, opt_state = carry
            draw_key, step_key = jax.random.split(jax.random.fold_in(key, i))
            loss, grads = gradient(weights, step_key, draw(draw_key))
            if proximal:
                grads = jax.tree.map(
                    lambda g, w, start: g + proximal * (w - start), grads, weights, params
                )
            moves, opt_state = optimizer.update(grads, opt_state, weights)
            moves = jax.tree.map(lambda m: scale * m, moves)
            return (optax.apply_updates(weights, moves), opt_state), loss

        carry = params, optimizer.init(params)
        (trained, _), losses = jax.lax.scan(step, carry, jnp.arange(steps))
        return jax.tree.map(jnp.subtract, trained, params), losses.mean()

    return train
