"""The inner training loop, differentiable."""

from typing import NamedTuple

import jax

from gxdistill.distill.inner import Carry, Inner, Step, sgd
from gxdistill.distill.losses import InnerLoss
from gxdistill.distill.memory import Memory, chosen, differentiable, estimates
from gxdistill.pytrees import Distilled, Params


class Training(NamedTuple):
    """How weights are trained on distilled data.

    Attributes:
      inner: the optimiser.
      memory: what the gradient keeps.
    """

    inner: Inner = sgd()
    memory: Memory = Memory()


PLAIN = Training()


def begin(
    loss: InnerLoss, params: Params, data: Distilled, training: Training
) -> tuple[Step, Carry]:
    """Returns one inner step and what the first one starts from.

    Raises:
      ValueError: the number of rates is not a multiple of the number of batches.
    """
    steps, rates = len(data.images), len(data.log_lr)
    if rates == 0 or rates % steps:
        raise ValueError(
            f"{rates} learning rates do not fit {steps} batches: T must be a multiple of S. "
            f"Give one rate for each step of each epoch."
        )
    return training.inner.step(loss), (params, training.inner.init(params))


def unroll(loss: InnerLoss, params: Params, data: Distilled, training: Training = PLAIN) -> Params:
    """Trains `params` on the distilled batches in their order, epoch after epoch.

    p[t+1] = p[t] - exp(log_lr[t]) * grad loss(p[t], images[t % S], labels[t % S]), as in Wang et
    al. 2018, https://arxiv.org/abs/1811.10959, or the move of another inner optimiser in place of
    the gradient. Differentiable in `params` and in every field of `data`.

    Args:
      loss: `(params, images [B, H, W, C], labels [B, K]) -> scalar`; must not close over what is
        differentiated.
      params: the weights to start from.
      data: S batches and T = S * epochs rates.
      training: inner optimiser and memory; the default is plain SGD.

    Returns:
      The trained weights, as `params`.

    Raises:
      ValueError: the number of rates is not a multiple of the number of batches, or the memory
        strategy is unknown.
    """
    step, carry = begin(loss, params, data, training)
    count = len(data.log_lr)
    trained, _ = differentiable(step, carry, data, 0, count=count, memory=training.memory)
    return trained


def choose_memory(
    loss: InnerLoss, params: Params, data: Distilled, training: Training, count: int
) -> tuple[str, dict[str, int]]:
    """Chooses the memory strategy, and tells the bytes that each would need.

    Args:
      loss: of an inner step.
      params: the weights; shapes suffice, also below.
      data: the distilled data.
      training: inner optimiser and memory.
      count: number of differentiated steps.

    Returns:
      The strategy's name and the estimates by name.
    """
    state = jax.eval_shape(training.inner.init, params)
    sizes = estimates(training.inner.step(loss), (params, state), data, count)
    return chosen(training.memory, sizes), sizes
