"""The losses that all training shares."""

import jax
import jax.numpy as jnp


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Averages -sum_k y_k log softmax(z)_k over the images: logits and labels `[N, K]` -> scalar.

    The labels need not be probabilities: raw soft labels are not.
    """
    return -jnp.mean(jnp.sum(labels * jax.nn.log_softmax(logits), axis=-1))
