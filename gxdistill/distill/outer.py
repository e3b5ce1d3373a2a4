"""The outer loop: a pair of pure functions that learns distilled data with any meta-gradient."""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from gxdistill import _check
from gxdistill.distill.meta_gradient import MetaGradient
from gxdistill.pytrees import Params
from gxdistill.training.steps import Loop, loop


def distiller(meta_gradient: MetaGradient, optimizer: optax.GradientTransformation) -> Loop:
    """Builds the outer loop; the variants of the method differ only in `meta_gradient`.

    Args:
      meta_gradient: `(learned, key, batch) -> (loss, grads)`.
      optimizer: updates what is learned, see `optimizer`.

    Returns:
      The pair of functions; an outer step is a step of it.
    """
    return loop(meta_gradient, optimizer)


def optimizer(
    outer_steps: int,
    *,
    images_lr: float,
    labels_lr: float,
    rates_lr: float,
    clip: float = 1.0,
    ema_clip: float = 0.0,
    warmup: int = 0,
    rule: str = "raw",
) -> optax.GradientTransformation:
    """Adam with clipped meta-gradients and a cosine schedule, one rate for each kind of data.

    Args:
      outer_steps: length of the schedule.
      images_lr: peak rate of the images; 0 keeps them as they start.
      labels_lr: of the labels; 0 keeps them as they start.
      rates_lr: of the log learning rates; 0 keeps them as they start.
      clip: largest global norm of a meta-gradient, over what is learned.
      ema_clip: largest norm as a multiple of its running mean, see `clip_by_running_norm`; 0 leaves
        this out.
      warmup: outer steps until the peak.
      rule: how labels are read, see `init.from_images`; "clipped" keeps them between 0 and 1.

    Returns:
      The transformation; its betas (.5, .999) are those of the base code.

    Raises:
      ValueError: a number is out of range.
    """
    _check.positive(outer_steps=outer_steps, clip=clip)
    peaks = {"images": images_lr, "labels": labels_lr, "rates": rates_lr}
    for name, value in {**peaks, "ema_clip": ema_clip, "warmup": warmup}.items():
        if not value >= 0:
            name = f"{name}_lr" if name in peaks else name
            raise ValueError(f"`{name}` is {value}; it must not be negative.")
    if not any(peaks.values()):
        raise ValueError("All rates are 0: nothing would be learned. Raise one of them.")
    if warmup >= outer_steps:
        raise ValueError(
            f"`warmup` is {warmup}, which leaves none of the {outer_steps} outer steps. Lower it."
        )

    kinds = {name: _adam(peak, outer_steps, warmup) for name, peak in peaks.items()}
    if rule == "clipped":
        kinds["labels"] = optax.chain(kinds["labels"], keep_between(0, 1))
    # What stays as it starts has no part in the norms.
    learned = {
        name: optax.identity() if peak else optax.set_to_zero() for name, peak in peaks.items()
    }
    return optax.chain(
        _by_kind(learned),
        optax.clip_by_global_norm(clip),
        clip_by_running_norm(ema_clip) if ema_clip else optax.identity(),
        _by_kind(kinds),
    )


def _adam(peak: float, outer_steps: int, warmup: int) -> optax.GradientTransformation:
    if peak == 0:
        return optax.set_to_zero()
    schedule = optax.warmup_cosine_decay_schedule(
        peak if warmup == 0 else 0.0, peak, warmup, outer_steps, end_value=0.01 * peak
    )
    return optax.adam(schedule, b1=0.5, b2=0.999)


def _by_kind(kinds: dict[str, optax.GradientTransformation]) -> optax.GradientTransformation:
    def kind_of_each(learned: Params) -> Params:
        return dataclasses.replace(learned, images="images", labels="labels", log_lr="rates")

    return optax.multi_transform(kinds, kind_of_each)


def keep_between(low: float, high: float) -> optax.GradientTransformation:
    """Projects parameters onto an interval after each update."""

    def update(updates: Params, state: Params, params: Params) -> tuple[Params, Params]:
        projected = jax.tree.map(lambda u, p: jnp.clip(p + u, low, high) - p, updates, params)
        return projected, state

    return optax.GradientTransformation(lambda _: optax.EmptyState(), update)


def clip_by_running_norm(multiple: float, decay: float = 0.9) -> optax.GradientTransformation:
    """Clips a gradient's norm to a multiple of its own exponential moving average.

    A meta-gradient's size changes by orders of magnitude over a run, so that no fixed bound fits;
    Feng et al. 2023, https://arxiv.org/abs/2311.07025, there over the images alone.

    Args:
      multiple: largest norm, in units of the average of the clipped norms so far.
      decay: of the average at each step.

    Returns:
      The transformation; the first gradient passes as it is.

    Raises:
      ValueError: `multiple` is not positive, or `decay` lies outside 0 to 1.
    """
    _check.positive(multiple=multiple)
    _check.share(decay=decay)

    def update(updates: Params, average: jax.Array, _: Params = None) -> tuple[Params, jax.Array]:
        norm = optax.tree.norm(updates)
        most = jnp.where(average == 0, norm, multiple * average)
        clipped = jnp.minimum(norm, most)
        factor = jnp.where(norm > most, most / norm, 1)
        average = jnp.where(average == 0, norm, decay * average + (1 - decay) * clipped)
        return jax.tree.map(lambda u: factor * u, updates), average

    return optax.GradientTransformation(lambda _: jnp.zeros(()), update)
