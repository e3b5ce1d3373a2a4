"""The receiving side: replays distilled data into networks, without any real image."""

import dataclasses
import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax

from gxdistill.distill.augment import augment_each
from gxdistill.distill.inner import Carry, Inner
from gxdistill.distill.losses import inner_loss
from gxdistill.distill.memory import batch_at
from gxdistill.distill.unroll import PLAIN, Training, begin, unroll
from gxdistill.errors import UserError
from gxdistill.pytrees import Distilled, Network, Params

STEPS = 1000  # Of ordinary training, its highest rate, and the most images of one step.
_RATE = 0.02
_NORM = 5.0  # No gradient is longer: a LeNet, which normalises nothing, would diverge.
_BATCH = 256
_CHUNK = 25  # Steps between words of progress: only there can it be interrupted.
_SAFE = ("rotate", "shift", "scale")  # Augmentations after which any patch is what it was.


@partial(jax.jit, static_argnames=("network", "rule", "inner", "augmentations"))
def replay(
    network: Network,
    params: Params,
    distilled: Distilled,
    key: jax.Array | None = None,
    *,
    rule: str,
    inner: Inner = PLAIN.inner,
    augmentations: tuple[str, ...] = (),
) -> Params:
    """Trains weights on distilled data, in its order and at its rates.

    Args:
      network: whose weights they are.
      params: the weights to start from.
      distilled: S batches and T rates.
      key: typed PRNG key of the augmentations, where there are some.
      rule: how labels are read, see `distill.init.from_images`.
      inner: the optimiser; plain SGD by default.
      augmentations: by which each image of each step is changed, see `distill.augment`.

    Returns:
      The trained weights.

    Raises:
      ValueError: there are augmentations, and no key.
    """
    loss = inner_loss(network, rule)
    if not augmentations:
        return unroll(loss, params, distilled, Training(inner))
    if key is None:
        raise ValueError("Augmentations are drawn: give `key`.")
    step, carry = begin(loss, params, distilled, Training(inner))

    def augmented(carry: Carry, t: jax.Array) -> tuple[Carry, None]:
        batch = batch_at(distilled, t)
        images = augment_each(batch.images, jax.random.fold_in(key, t), augmentations)
        return step(carry, dataclasses.replace(batch, images=images)), None

    return jax.lax.scan(augmented, carry, jnp.arange(len(distilled.log_lr)))[0][0]


def ordinary(
    network: Network,
    params: Params,
    distilled: Distilled,
    key: jax.Array,
    *,
    rule: str,
    steps: int = STEPS,
    augmentations: tuple[str, ...] = _SAFE,
    progress: Callable[[int], None] | None = None,
) -> Params:
    """Trains weights on distilled images as on any small data set: where the rates do not suit.

    The field's way, Zhao & Bilen 2021, https://arxiv.org/abs/2102.08259: SGD with momentum 0.9 on
    up to 256 images at a time, here half of all at most, each changed by a draw of its own. There
    the rate is 0.01, and then a tenth of it; here it rises to 0.02 in a tenth of the steps, for
    large networks start wildly, and falls by a cosine; and no gradient is longer than 5. Neither
    order nor rates of the distilled data are looked at. Each image is brought to mean 0 and spread
    1 first, as patches have together: a network that normalises what it sees leaves the images it
    was distilled with at any scale.

    Args:
      network: whose weights they are.
      params: the weights to start from.
      distilled: S batches, of which images and labels are taken.
      key: typed PRNG key of order and augmentation.
      rule: how labels are read, see `distill.init.from_images`.
      steps: number of updates.
      augmentations: see `distill.augment`.
      progress: called now and then with the number of steps done.

    Returns:
      The trained weights.
    """
    data = _standardised(distilled)
    keys = jax.random.split(key, steps)
    carry = params, _optimiser(steps).init(params)
    how = {"rule": rule, "steps": steps, "augmentations": augmentations}
    for done in range(0, steps, _CHUNK):
        some = keys[done : done + _CHUNK]
        carry = _updates(network, carry, data, some, **how)
        if progress is not None:
            jax.block_until_ready(carry)
            progress(done + len(some))
    return carry[0]


def _standardised(distilled: Distilled) -> tuple[jax.Array, jax.Array]:
    """Returns all images, each of mean 0 and spread 1, and their labels."""
    images = distilled.images.reshape(-1, *distilled.images.shape[2:])
    mean, spread = (of(images, axis=(1, 2, 3), keepdims=True) for of in (jnp.mean, jnp.std))
    return (images - mean) / jnp.maximum(spread, 1e-6), distilled.labels.reshape(len(images), -1)


def _optimiser(steps: int) -> optax.GradientTransformation:
    rate = optax.warmup_cosine_decay_schedule(0.0, _RATE, steps // 10, steps)
    return optax.chain(optax.clip_by_global_norm(_NORM), optax.sgd(rate, momentum=0.9))


@partial(jax.jit, static_argnames=("network", "rule", "steps", "augmentations"))
def _updates(
    network: Network,
    carry: tuple[Params, optax.OptState],
    data: tuple[jax.Array, jax.Array],
    keys: jax.Array,
    *,
    rule: str,
    steps: int,
    augmentations: tuple[str, ...],
) -> tuple[Params, optax.OptState]:
    """Makes one update for each key, of `steps` in all."""
    (images, labels), optimiser = data, _optimiser(steps)
    gradient, batch = jax.grad(inner_loss(network, rule)), batch_of(len(images))

    def update(
        carry: tuple[Params, optax.OptState], key: jax.Array
    ) -> tuple[tuple[Params, optax.OptState], None]:
        params, state = carry
        chosen = jax.random.permutation(key, len(images))[:batch]
        seen = images[chosen]
        if augmentations:
            seen = augment_each(seen, jax.random.fold_in(key, 1), augmentations)
        moves, state = optimiser.update(gradient(params, seen, labels[chosen]), state)
        return (optax.apply_updates(params, moves), state), None

    return jax.lax.scan(update, carry, keys)[0]


def batch_of(count: int) -> int:
    """Counts the images of a step of `ordinary` on `count` images."""
    return min(_BATCH, math.ceil(count / 2))


def replay_many(
    network: Network,
    keys: jax.Array,
    distilled: Distilled,
    *,
    rule: str,
    inner: Inner = PLAIN.inner,
    augmentations: tuple[str, ...] = (),
) -> Params:
    """Trains one fresh network for each key.

    Args:
      network: what is trained.
      keys: typed PRNG keys, `[R]`.
      distilled: S batches and T rates.
      rule: see `replay`.
      inner: see `replay`.
      augmentations: see `replay`.

    Returns:
      The trained weights, each leaf with a leading axis R.

    Raises:
      UserError: a network diverged.
    """
    train = partial(replay, rule=rule, inner=inner, augmentations=augmentations)
    trained = [train(network, network.init(key), distilled, draws_of(key)) for key in keys]
    check_finite(trained)
    return stacked(trained)


def draws_of(key: jax.Array) -> jax.Array:
    """Returns the key of a network's augmentations, of the key of its first weights."""
    return jax.random.fold_in(key, 1)


def stacked(trained: list[Params]) -> Params:
    """Puts the weights of R networks together: each leaf gets a leading axis R."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trained)


def check_finite(trained: list[Params]) -> None:
    """Refuses weights that are not finite.

    Raises:
      UserError: naming the network.
    """
    for i, params in enumerate(trained):
        if not all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(params)):
            raise UserError(
                f"Training network {i + 1} of {len(trained)} on the distilled data diverged: its "
                f"weights are not finite. Use the network that the package names; if it is that "
                f"one, ask for another package."
            )
