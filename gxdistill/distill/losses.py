"""The loss of the inner and the outer steps."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from gxdistill.distill.init import targets
from gxdistill.pytrees import Network, Params
from gxdistill.runtime import platform
from gxdistill.training.losses import cross_entropy

_CACHED = 32  # Images.

InnerLoss = Callable[[Params, jax.Array, jax.Array], jax.Array]


def inner_loss(network: Network, rule: str) -> InnerLoss:
    """Builds the loss of an inner step, `(params, images [B, ...], labels [B, K]) -> scalar`."""

    def loss(params: Params, images: jax.Array, labels: jax.Array) -> jax.Array:
        return cross_entropy(network.apply(params, images), targets(labels, rule))

    return loss


def real_loss(network: Network, *, chunk: int | None = None) -> InnerLoss:
    """Builds the loss on a large real batch, `(params, images [N, ...], labels [N, K]) -> scalar`.

    The batch is gone through in chunks, and the gradient is made along with the value: nothing is
    stored for more than a chunk. Only `params` get a gradient.

    Args:
      network: whose logits are judged.
      chunk: images of a chunk; None takes all on an accelerator and, on a CPU, as many as leave
        what is computed in its cache.
    """

    def swept(of_chunk: Callable, images: jax.Array, labels: jax.Array) -> Params:
        """Averages `of_chunk(images, labels)` over the chunks, each a sum over its images."""
        count = len(images)
        size = min(chunk or (_CACHED if platform.platform() == "cpu" else count), count)
        fill = [(0, -count % size)]  # Images without a label, which add nothing to the sum.
        parts = [
            jnp.pad(x, fill + [(0, 0)] * (x.ndim - 1)).reshape(-1, size, *x.shape[1:])
            for x in (images, labels)
        ]

        def add(total: Params, part: list[jax.Array]) -> tuple[Params, None]:
            return jax.tree.map(jnp.add, total, of_chunk(*part)), None

        shapes = jax.eval_shape(of_chunk, parts[0][0], parts[1][0])
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return jax.tree.map(lambda x: x / count, jax.lax.scan(add, zeros, parts)[0])

    def total(params: Params, images: jax.Array, labels: jax.Array) -> jax.Array:
        return len(images) * cross_entropy(network.apply(params, images), labels)

    @jax.custom_vjp
    def loss(params: Params, images: jax.Array, labels: jax.Array) -> jax.Array:
        return swept(partial(total, params), images, labels)

    def forward(params: Params, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, Params]:
        return swept(partial(jax.value_and_grad(total), params), images, labels)

    def backward(grads: Params, by_loss: jax.Array) -> tuple[Params, None, None]:
        return jax.tree.map(lambda g: by_loss * g, grads), None, None

    loss.defvjp(forward, backward)
    return loss
