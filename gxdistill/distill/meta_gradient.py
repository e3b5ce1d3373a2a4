"""Meta-gradients: `(learned, key, batch) -> (loss, grads)`; a new idea is a new function here."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gxdistill import _check
from gxdistill.distill.augment import augment
from gxdistill.distill.losses import inner_loss, real_loss
from gxdistill.distill.truncation import InnerLoop, full
from gxdistill.distill.views import as_learned
from gxdistill.pytrees import Batch, Distilled, Network, Params
from gxdistill.runtime import platform
from gxdistill.runtime.sharding import averaged

# `(learned, key, batch) -> (loss, grads)`; `Learned`, or what else a view makes `Distilled` of.
MetaGradient = Callable[[Any, jax.Array, Batch], tuple[jax.Array, Any]]

_FULL = full()
# Folded into a step's key, beside its own use for the weights; no network has such a number.
_VIEW, _TRAIN, _AUGMENT = 2**32 - 2, 2**32 - 3, 2**32 - 4


def after_training(
    network: Network,
    *,
    rule: str,
    train: InnerLoop = _FULL,
    view: Callable[[Any, jax.Array], Distilled] = as_learned,
    augmentations: Sequence[str] = (),
    known_key: jax.Array | None = None,
    networks: int = 1,
    at_once: int | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> MetaGradient:
    """Differentiates the loss on real data of networks trained on distilled data.

    minimise over (x, y, eta) the mean of l(real; theta_T) over the initial weights theta_0, as in
    Wang et al. 2018, https://arxiv.org/abs/1811.10959.

    Args:
      network: what is trained.
      rule: how labels are read, see `init.from_images`.
      train: how, and which of its steps are differentiated, see `truncation`.
      view: what it is trained on, as a function of what is learned, see `views`.
      augmentations: of real and distilled images, one draw a network, see `augment`.
      known_key: draws the one known theta_0; None draws fresh weights at each outer step.
      networks: number of initial weights that one outer step averages over; a known init is one.
      at_once: how many of a device's networks are trained side by side, by `vmap`; None takes all
        on an accelerator and one after another on a CPU, where `vmap` would make slow grouped
        convolutions.
      mesh: what networks and batch are shared out over, see `sharding`; None is one device.

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
    on_real = real_loss(network)
    trained = weights_after(
        network,
        rule=rule,
        train=train,
        view=view,
        augmentations=augmentations,
        known_key=known_key,
    )

    def after(learned: Any, key: jax.Array, batch: Batch) -> jax.Array:
        params = trained(learned, key)
        labels = jax.nn.one_hot(batch.targets, learned.labels.shape[-1])
        return on_real(params, as_trained_on(batch.images, key, augmentations), labels)

    gradient = jax.value_and_grad(after)

    def mean(learned: Any, keys: jax.Array, batch: Batch) -> tuple[jax.Array, Any]:
        if len(keys) == 1:
            return gradient(learned, keys[0], batch)
        together = at_once or (1 if platform.platform() == "cpu" else len(keys))
        results = jax.lax.map(
            lambda key: gradient(learned, key, batch),
            keys,
            batch_size=None if together == 1 else together,
        )
        return jax.tree.map(lambda x: jnp.mean(x, axis=0), results)

    def meta_gradient(learned: Any, key: jax.Array, batch: Batch) -> tuple[jax.Array, Any]:
        keys = key[None] if networks == 1 else jax.random.split(key, networks)
        return (mean if mesh is None else averaged(mean, mesh))(learned, keys, batch)

    return meta_gradient


def weights_after(
    network: Network,
    *,
    rule: str,
    train: InnerLoop,
    view: Callable[[Any, jax.Array], Distilled],
    augmentations: Sequence[str],
    known_key: jax.Array | None,
) -> Callable[[Any, jax.Array], Params]:
    """Builds `(learned, key) -> weights` of a network that is trained on what is learned.

    All arguments are those of `after_training`; `key` is one network's, of one outer step.
    """
    loss = inner_loss(network, rule)

    def weights(learned: Any, key: jax.Array) -> Params:
        data = view(learned, jax.random.fold_in(key, _VIEW))
        data = dataclasses.replace(data, images=as_trained_on(data.images, key, augmentations))
        start = network.init(key if known_key is None else known_key)
        return train(loss, start, data, jax.random.fold_in(key, _TRAIN))

    return weights


def as_trained_on(images: jax.Array, key: jax.Array, augmentations: Sequence[str]) -> jax.Array:
    """Changes images, real or distilled, by the one draw of a network's key."""
    return augment(images, jax.random.fold_in(key, _AUGMENT), augmentations)
