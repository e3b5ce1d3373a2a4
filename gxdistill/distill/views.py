"""What is trained on, as a function of what is learned: `(learned, key) -> distilled`."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from gxdistill.distill.synthesis import Synthesis
from gxdistill.pytrees import Distilled, Learned

View = Callable[[Distilled, jax.Array], Distilled]


def as_learned(data: Distilled, _: jax.Array) -> Distilled:
    """Trains on the data as they are: their order and a rate for each step."""
    return data


def shared_rate(data: Distilled, _: jax.Array) -> Distilled:
    """Trains all steps at one rate, the geometric mean of the T.

    All T get the same gradient, so rates that start equal stay equal, and a package replays as it
    was learned.
    """
    return dataclasses.replace(data, log_lr=jnp.full_like(data.log_lr, data.log_lr.mean()))


def order_free(data: Distilled, key: jax.Array) -> Distilled:
    """Trains at one rate on batches drawn anew from all images, so that order cannot matter.

    For images that are to be mixed into ordinary training: learned in an order, they teach little
    in another.
    """
    steps, per_step = data.labels.shape[:2]
    order = jax.random.permutation(key, steps * per_step)

    def shuffled(x: jax.Array) -> jax.Array:
        return x.reshape(-1, *x.shape[2:])[order].reshape(x.shape)

    images, labels = shuffled(data.images), shuffled(data.labels)
    return shared_rate(dataclasses.replace(data, images=images, labels=labels), key)


def shuffled(data: Distilled, key: jax.Array) -> Distilled:
    """Trains as ordinary mini-batch SGD would: one rate, all images in a new order each epoch.

    Unlike `order_free`, which is learned with and keeps its order from one epoch to the next: it
    tells how much of a set dies in a training that knows nothing of it. Gives T batches for S.
    """
    epochs = len(data.log_lr) // len(data.images)
    orders = [order_free(data, jax.random.fold_in(key, epoch)) for epoch in range(epochs)]
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *orders).replace(
        log_lr=shared_rate(data, key).log_lr
    )


def hard_labels(data: Distilled, _: jax.Array) -> Distilled:
    """Trains on one-hot labels, each of the class that the soft label prefers."""
    labels = jax.nn.one_hot(data.labels.argmax(-1), data.labels.shape[-1])
    return dataclasses.replace(data, labels=labels)


def synthesised(
    synthesis: Synthesis, view: View = as_learned
) -> Callable[[Learned, jax.Array], Distilled]:
    """Makes the images of learned parameters, then views them by `view`."""

    def make(learned: Learned, key: jax.Array) -> Distilled:
        images = synthesis.synthesise(learned.images)
        return view(Distilled(images, learned.labels, learned.log_lr), key)

    return make
