"""What distilled images must beat, and the ceiling that they are measured against.

Real patches, class means and k-means centres are used as a distilled set of the same number of
images and the same number of steps; only their rate is chosen, for the best loss on training
patches. The ceiling trains the same network on all real patches.
"""

import dataclasses
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gxdistill.distill import init
from gxdistill.distill.losses import cross_entropy
from gxdistill.distill.outer import Feed
from gxdistill.pytrees import Batch, Distilled, Network, Params
from gxdistill.train import replay

Draw = Callable[[Feed, jax.Array], Batch]
_RATES = (0.003, 0.01, 0.03, 0.1, 0.3)


def random_real(pool: Batch, like: Distilled, key: jax.Array) -> Distilled:
    """Takes random real patches, each class in its turn.

    Args:
      pool: a class-balanced batch of training patches.
      like: the distilled data whose numbers of steps, images and epochs are taken over.
      key: typed PRNG key.

    Returns:
      Real patches with one-hot labels.
    """
    return _by_class(pool, like, lambda images, count, _: images[:count], key)


def class_means(pool: Batch, like: Distilled, key: jax.Array) -> Distilled:
    """Takes the mean patch of each class, repeated; arguments as of `random_real`."""

    def mean(images: np.ndarray, count: int, _: jax.Array) -> np.ndarray:
        return np.repeat(images.mean(axis=0, keepdims=True), count, axis=0)

    return _by_class(pool, like, mean, key)


def kmeans_centres(pool: Batch, like: Distilled, key: jax.Array) -> Distilled:
    """Takes centres of the patches of each class by Lloyd's algorithm; arguments as `random_real`.

    Lloyd 1982, https://doi.org/10.1109/TIT.1982.1056489.
    """
    return _by_class(pool, like, _lloyd, key)


def _by_class(
    pool: Batch,
    like: Distilled,
    choose: Callable[[np.ndarray, int, jax.Array], np.ndarray],
    key: jax.Array,
) -> Distilled:
    steps, per_step = like.images.shape[:2]
    num_classes = like.labels.shape[-1]
    classes = np.asarray(init.label_classes(steps, per_step, num_classes))
    images = np.zeros(like.images.shape, np.float32)
    for label in range(num_classes):
        mine = np.asarray(pool.images)[np.asarray(pool.labels) == label]
        count = int((classes == label).sum())
        images[classes == label] = choose(mine, count, jax.random.fold_in(key, label))
    epochs = len(like.log_lr) // steps
    return init.start(
        jnp.asarray(images), jnp.asarray(classes), num_classes, epochs=epochs, lr=0.01, rule="raw"
    )


def _lloyd(images: np.ndarray, count: int, key: jax.Array, rounds: int = 20) -> np.ndarray:
    flat = images.reshape(len(images), -1)
    chosen = jax.random.choice(key, len(flat), (count,), replace=len(flat) < count)
    centres = flat[np.asarray(chosen)].copy()
    for _ in range(rounds):
        # |x - c|^2 up to the term in x alone, which does not change the nearest centre.
        nearest = (np.square(centres).sum(1) - 2 * flat @ centres.T).argmin(axis=1)
        for i in np.unique(nearest):
            centres[i] = flat[nearest == i].mean(axis=0)
    return centres.reshape(count, *images.shape[1:])


@partial(jax.jit, static_argnames=("network",))
def _pool_loss(network: Network, params: Params, pool: Batch) -> jax.Array:
    logits = network.apply(params, pool.images)
    return cross_entropy(logits, jax.nn.one_hot(pool.labels, logits.shape[-1]))


def with_best_rate(network: Network, data: Distilled, pool: Batch, start: Params) -> Distilled:
    """Gives a baseline the constant rate that serves it best on training patches.

    Args:
      network: what is trained.
      data: from one of the functions above.
      pool: training patches to compare on.
      start: the weights to start from.

    Returns:
      `data` with all rates set to the best of a fixed list.
    """

    def at(rate: float) -> Distilled:
        return dataclasses.replace(data, log_lr=jnp.full_like(data.log_lr, np.log(rate)))

    def loss(rate: float) -> float:
        params = replay(network, start, at(rate), rule="raw")
        return float(np.nan_to_num(_pool_loss(network, params, pool), nan=np.inf))

    return at(min(_RATES, key=loss))


def train_on_real(
    network: Network,
    draw: Draw,
    feed: Feed,
    start: Params,
    key: jax.Array,
    *,
    steps: int,
    lr: float,
) -> Params:
    """Trains a network on all real patches: the ceiling.

    Adam with a cosine schedule on class-balanced batches.

    Args:
      network: what is trained.
      draw: `(feed, key) -> Batch`.
      feed: what `draw` draws from.
      start: the weights to start from.
      key: typed PRNG key of the batches.
      steps: number of updates.
      lr: first rate.

    Returns:
      The trained weights.
    """
    optimizer = optax.adam(optax.cosine_decay_schedule(lr, steps))

    def loss(params: Params, batch: Batch) -> jax.Array:
        logits = network.apply(params, batch.images)
        return cross_entropy(logits, jax.nn.one_hot(batch.labels, logits.shape[-1]))

    @jax.jit
    def update(
        params: Params, state: optax.OptState, feed: Feed, step: jax.Array
    ) -> tuple[Params, optax.OptState]:
        batch = draw(feed, jax.random.fold_in(key, step))
        updates, state = optimizer.update(jax.grad(loss)(params, batch), state, params)
        return optax.apply_updates(params, updates), state

    params, state = start, optimizer.init(start)
    for step in range(steps):
        params, state = update(params, state, feed, jnp.int32(step))
    return params
