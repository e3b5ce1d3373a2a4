"""Training a network on real patches: a loop like any other."""

from collections.abc import Callable

import jax
import optax

from gxdistill.pytrees import Batch, Network, Params
from gxdistill.training import steps
from gxdistill.training.losses import cross_entropy

RealLoss = Callable[[Params, Batch], jax.Array]


def classification_loss(network: Network) -> RealLoss:
    """Builds the cross-entropy to the classes of a batch, `(params, batch) -> scalar`."""

    def loss(params: Params, batch: Batch) -> jax.Array:
        logits = network.apply(params, batch.images)
        return cross_entropy(logits, jax.nn.one_hot(batch.targets, logits.shape[-1]))

    return loss


def supervised(loss: RealLoss, *, count: int, lr: float, decay: float = 0.0) -> steps.Loop:
    """Builds the ordinary training of a network: Adam with a cosine schedule.

    Args:
      loss: `(params, batch) -> scalar`.
      count: number of steps, over which the rate falls to 0.
      lr: first rate.
      decay: of the weights, in units of the rate; decoupled from the gradient, after Loshchilov &
        Hutter 2019, https://arxiv.org/abs/1711.05101.

    Returns:
      The loop; what it learns are the weights.
    """
    optimizer = optax.adamw(optax.cosine_decay_schedule(lr, count), weight_decay=decay)
    value_and_gradient = jax.value_and_grad(loss)

    def gradient(params: Params, _: jax.Array, batch: Batch) -> tuple[jax.Array, Params]:
        return value_and_gradient(params, batch)

    return steps.loop(gradient, optimizer)
