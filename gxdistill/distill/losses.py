"""The loss of the inner and the outer steps."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gxdistill.distill.init import targets
from gxdistill.pytrees import Network, Params

InnerLoss = Callable[[Params, jax.Array, jax.Array], jax.Array]


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Means - sum_k y_k log softmax(z)_k over the images: logits and labels `[N, K]` -> scalar.

    The labels need not be probabilities: raw soft labels are not.
    """
    return -jnp.mean(jnp.sum(labels * jax.nn.log_softmax(logits), axis=-1))


def inner_loss(network: Network, rule: str) -> InnerLoss:
    """Builds the loss of an inner step, `(params, images [B, ...], labels [B, K]) -> scalar`."""

    def loss(params: Params, images: jax.Array, labels: jax.Array) -> jax.Array:
        return cross_entropy(network.apply(params, images), targets(labels, rule))

    return loss
