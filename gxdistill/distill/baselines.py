"""What distilled images must beat.

Real patches, with their labels or with soft ones, class means and k-means centres are used as a
distilled set of the same number of images and the same number of steps; only their first rate is
chosen, for the best loss on training patches.
"""

import dataclasses
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from gxdistill.distill import init, mixture
from gxdistill.pytrees import Batch, Distilled, Network, Params
from gxdistill.training.supervised import classification_loss

_RATES = (0.003, 0.01, 0.03, 0.1, 0.3)


def random_real(pool: Batch, like: Distilled, key: jax.Array) -> Distilled:
    """Takes random real patches, each class in its turn, none twice where there are enough.

    Args:
      pool: a batch of training patches of all classes.
      like: the distilled data whose numbers of steps, images and epochs are taken over.
      key: typed PRNG key.

    Returns:
      Real patches with one-hot labels.

    Raises:
      ValueError: the pool lacks a class.
    """

    def distinct(images: np.ndarray, count: int, key: jax.Array) -> np.ndarray:
        return mixture.some(np.unique(images, axis=0), count, key)

    return _by_class(pool, like, distinct, key)


def with_teacher_labels(
    data: Distilled, network: Network, teachers: Params, temperature: float = 1.0
) -> Distilled:
    """Gives images the soft labels that networks trained on all real patches give them.

    Given to real patches they tell what distilled images are worth beside their labels, Qin et al.
    2024, https://arxiv.org/abs/2406.10485.

    Args:
      data: any distilled data.
      network: of the teachers.
      teachers: weights of R networks, each leaf with a leading axis R.
      temperature: above 0; below 1 labels are sharper than the networks' probabilities, above 1
        flatter, as of Hinton et al. 2015, https://arxiv.org/abs/1503.02531.

    Returns:
      `data`, its labels the mean of the networks' probabilities, at that temperature: each to the
      power of 1 / temperature, and their sum 1 again.
    """

    def of_step(images: jax.Array) -> jax.Array:
        each = jax.lax.map(lambda params: jax.nn.softmax(network.apply(params, images)), teachers)
        mean = each.mean(axis=0)
        # At 1 just as they are: there and back again, they would be rounded.
        return mean if temperature == 1 else jax.nn.softmax(jnp.log(mean) / temperature)

    return dataclasses.replace(data, labels=jax.lax.map(of_step, data.images))


def class_means(pool: Batch, like: Distilled, key: jax.Array) -> Distilled:
    """Takes the mean patch of each class, repeated; arguments as of `random_real`."""

    def mean(images: np.ndarray, count: int, _: jax.Array) -> np.ndarray:
        return np.repeat(images.mean(axis=0, keepdims=True), count, axis=0)

    return _by_class(pool, like, mean, key)


def kmeans_centres(pool: Batch, like: Distilled, key: jax.Array) -> Distilled:
    """Takes centres of each class's patches, see `mixture.centres`; arguments as `random_real`."""
    return _by_class(pool, like, mixture.centres, key)


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
    for label in np.unique(classes):  # not all K, where there are fewer images
        of_label = np.asarray(pool.images)[np.asarray(pool.targets) == label]
        if not len(of_label):
            raise ValueError(f"The pool has no patch of class {label}. Draw one of all classes.")
        count = int((classes == label).sum())
        images[classes == label] = choose(of_label, count, jax.random.fold_in(key, int(label)))
    epochs = len(like.log_lr) // steps
    return init.from_images(
        jnp.asarray(images), jnp.asarray(classes), num_classes, epochs=epochs, lr=0.01, rule="raw"
    )


@partial(jax.jit, static_argnames=("network",))
def _loss_of(network: Network, params: Params, batch: Batch) -> jax.Array:
    return classification_loss(network)(params, batch)


def with_best_rate(
    network: Network,
    data: Distilled,
    pool: Batch,
    train: Callable[[Distilled], Params],
    *,
    schedule: str = "constant",
) -> Distilled:
    """Gives a baseline the first rate that serves it best on training patches.

    Args:
      network: what is trained.
      data: from one of the functions above.
      pool: training patches to compare on.
      train: data into weights, as the baseline will be trained.
      schedule: how rates go on from the first, see `init.from_images`; that of what it is compared
        with.

    Returns:
      `data` with its rates from the best of a fixed list on.
    """

    def at(rate: float) -> Distilled:
        rates = init.log_rates(len(data.log_lr), rate, schedule)
        return dataclasses.replace(data, log_lr=rates)

    def loss(rate: float) -> float:
        return float(np.nan_to_num(_loss_of(network, train(at(rate)), pool), nan=np.inf))

    return at(min(_RATES, key=loss))
