"""The inner training loop, differentiable."""

import dataclasses

import jax
import jax.numpy as jnp

from gxdistill.distill.losses import InnerLoss
from gxdistill.pytrees import Distilled, Params


def unroll(loss: InnerLoss, params: Params, data: Distilled, *, remat: bool = True) -> Params:
    """Trains `params` by plain SGD on the distilled batches in their order, epoch after epoch.

    p[t+1] = p[t] - exp(log_lr[t]) * grad loss(p[t], images[t % S], labels[t % S]), as in Wang et
    al. 2018, https://arxiv.org/abs/1811.10959. Differentiable in `params` and in every field of
    `data`.

    Args:
      loss: `(params, images [B, H, W, C], labels [B, K]) -> scalar`.
      params: the weights to start from.
      data: S batches and T = S * epochs rates.
      remat: recomputes the inside of a step for the gradient in place of storing it.

    Returns:
      The trained weights, as `params`.

    Raises:
      ValueError: the number of rates is not a multiple of the number of batches.
    """
    steps, rates = len(data.images), len(data.log_lr)
    if rates == 0 or rates % steps:
        raise ValueError(
            f"{rates} learning rates do not fit {steps} batches: T must be a multiple of S. "
            f"Give one rate for each step of each epoch."
        )

    def step(params: Params, batch: Distilled) -> tuple[Params, None]:
        grads = jax.grad(loss)(params, batch.images, batch.labels)
        lr = jnp.exp(batch.log_lr)
        return jax.tree.map(lambda p, g: p - lr * g, params, grads), None

    step = jax.checkpoint(step) if remat else step

    def epoch(params: Params, log_lr: jax.Array) -> tuple[Params, None]:
        return jax.lax.scan(step, params, dataclasses.replace(data, log_lr=log_lr))

    final, _ = jax.lax.scan(epoch, params, data.log_lr.reshape(-1, steps))
    return final
