"""Where distilled data starts, and how its labels are read."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from gxdistill import _check
from gxdistill.pytrees import Distilled

LABEL_RULES = ("raw", "softmax", "clipped")
SCHEDULES = ("constant", "cosine")
_SOFTMAX_START = 3.0  # Logit of a label's own class at the start: 0.91 of three classes.
_LEAST = 1e-6  # Probability whose logarithm a logit starts from.


def label_classes(steps: int, images_per_step: int, classes: int) -> jax.Array:
    """Deals the classes to the distilled images in turn, so that any number of images is fair.

    Returns:
      `[S, B]` int32; with `images_per_step` a multiple of `classes`, each step holds each class
      equally often; with fewer images than classes, the next step goes on where this one ended.
    """
    turns = jnp.arange(steps * images_per_step, dtype=jnp.int32)
    return (turns % classes).reshape(steps, images_per_step)


def from_images(
    images: jax.Array,
    classes: jax.Array,
    num_classes: int,
    *,
    epochs: int,
    lr: float,
    rule: str,
    schedule: str = "constant",
) -> Distilled:
    """Makes distilled data of given images.

    Args:
      images: `[S, B, H, W, C]` float32, normalised.
      classes: `[S, B]` integer, the class that each label starts from.
      num_classes: K.
      epochs: how often the S steps are gone through.
      lr: first inner learning rate of the T = S * epochs steps.
      rule: "raw" starts from one-hot labels and leaves them unconstrained, the published default
        of Sucholutsky & Schonlau 2019, https://arxiv.org/abs/1910.02551; "softmax" learns logits;
        "clipped" starts from one-hot labels too, and `outer.optimizer` keeps them from 0 to 1.
      schedule: "constant", all steps start at the first rate; "cosine", falling to 0.

    Returns:
      The distilled data.

    Raises:
      ValueError: `epochs` or `lr` is not positive, or the rule or the schedule is unknown.
    """
    _check.positive(epochs=epochs, lr=lr)
    _check.one_of("label rule", rule, LABEL_RULES)
    _check.one_of("schedule", schedule, SCHEDULES)
    labels = jax.nn.one_hot(classes, num_classes)
    if rule == "softmax":
        labels = _SOFTMAX_START * labels
    return Distilled(images, labels, log_rates(len(images) * epochs, lr, schedule))


def log_rates(count: int, lr: float, schedule: str) -> jax.Array:
    """Returns the logarithms of `count` inner rates from `lr` on, see `from_images`: `[T]`."""
    log_lr = jnp.full(count, jnp.log(lr), jnp.float32)
    if schedule == "cosine":
        log_lr += jnp.log((1 + jnp.cos(jnp.pi * jnp.arange(count) / count)) / 2)
    return log_lr


def noise(
    key: jax.Array,
    *,
    steps: int,
    images_per_step: int,
    shape: Sequence[int],
    num_classes: int,
    epochs: int,
    lr: float,
    rule: str,
    schedule: str = "constant",
) -> Distilled:
    """Starts from Gaussian noise: the default, for real images at the start leak strongly.

    Args:
      key: typed PRNG key.
      steps: S, inner steps of one epoch.
      images_per_step: B.
      shape: of one image, `[H, W, C]`.
      num_classes: K.
      epochs: how often the S steps are gone through.
      lr: first inner learning rate.
      rule: see `from_images`.
      schedule: see `from_images`.

    Returns:
      The distilled data.

    Raises:
      ValueError: a number is not positive, or the rule or the schedule is unknown.
    """
    _check.positive(steps=steps, images_per_step=images_per_step, num_classes=num_classes)
    images = jax.random.normal(key, (steps, images_per_step, *shape), jnp.float32)
    classes = label_classes(steps, images_per_step, num_classes)
    return from_images(
        images, classes, num_classes, epochs=epochs, lr=lr, rule=rule, schedule=schedule
    )


def targets(labels: jax.Array, rule: str) -> jax.Array:
    """Reads learned labels as the targets of the inner loss: `[..., K] -> [..., K]`."""
    return jax.nn.softmax(labels) if rule == "softmax" else labels


def as_learned(probabilities: jax.Array, rule: str) -> jax.Array:
    """Returns the learned labels that `targets` reads as these probabilities: `[..., K]`."""
    return jnp.log(jnp.maximum(probabilities, _LEAST)) if rule == "softmax" else probabilities
