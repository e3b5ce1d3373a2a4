"""Meta-gradients: `(distilled, key, batch) -> (loss, grads)`; a new idea is a new function here."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gxdistill import _check
from gxdistill.distill.losses import cross_entropy, inner_loss
from gxdistill.distill.unroll import PLAIN, Training, unroll
from gxdistill.pytrees import Batch, Distilled, Network

MetaGradient = Callable[[Distilled, jax.Array, Batch], tuple[jax.Array, Distilled]]


def full_unroll(
    network: Network,
    *,
    rule: str,
    known_key: jax.Array | None = None,
    networks: int = 1,
    training: Training = PLAIN,
) -> MetaGradient:
    """Differentiates the loss on real data through all T inner steps.

    minimise over (x, y, eta) the mean of l(real; theta_T) over the initial weights theta_0, as in
    Wang et al. 2018, https://arxiv.org/abs/1811.10959.

    Args:
      network: what is trained on the distilled data.
      rule: how labels are read, see `init.start`.
      known_key: draws the one known theta_0; None draws fresh weights at each outer step.
      networks: number of initial weights that one outer step averages over; a known init is one.
      training: inner optimiser and memory, see `unroll`.

    Returns:
      The meta-gradient; its loss is the mean cross-entropy on the real batch.

    Raises:
      ValueError: `networks` is not positive, or is more than one with a known init.
    """
    _check.positive(networks=networks)
    if known_key is not None and networks != 1:
        raise ValueError(
            f"`networks` is {networks} with a known init, which is one set of weights. "
            f"Pass 1, or a random init."
        )
    loss = inner_loss(network, rule)

    def after_training(distilled: Distilled, key: jax.Array, batch: Batch) -> jax.Array:
        params = unroll(loss, network.init(key), distilled, training)
        logits = network.apply(params, batch.images)
        return cross_entropy(logits, jax.nn.one_hot(batch.labels, logits.shape[-1]))

    def meta_gradient(
        distilled: Distilled, key: jax.Array, batch: Batch
    ) -> tuple[jax.Array, Distilled]:
        one = jax.value_and_grad(after_training)
        if networks == 1:
            return one(distilled, key if known_key is None else known_key, batch)
        keys = jax.random.split(key, networks)
        # One after another on a CPU, where `vmap` would make slow grouped convolutions.
        together = None if jax.default_backend() == "cpu" else networks
        results = jax.lax.map(lambda k: one(distilled, k, batch), keys, batch_size=together)
        return jax.tree.map(lambda x: jnp.mean(x, axis=0), results)

    return meta_gradient
