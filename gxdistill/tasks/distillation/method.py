"""The method of a job: from its settings to the outer loop and what it starts from."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gxdistill.distill import (
    init,
    inner,
    meta_gradient,
    mixture,
    outer,
    synthesis,
    truncation,
    views,
)
from gxdistill.distill.losses import inner_loss
from gxdistill.distill.memory import Memory
from gxdistill.distill.unroll import Training, plan
from gxdistill.errors import UserError
from gxdistill.jobs.job import Job
from gxdistill.package.seeds import Use
from gxdistill.pytrees import Distilled, Metadata

WINDOWS: dict[str, Callable[[int, Training], truncation.InnerLoop]] = {
    "all": lambda _, training: truncation.full(training),
    "last": truncation.fixed_window,
    "random": truncation.random_window,
    "adaptive": truncation.adaptive_window,
}
RATES: dict[str, views.View] = {
    "per_step": views.as_learned,
    "shared": views.shared_rate,
    "order_free": views.order_free,
}
# Of a card's memory; the rest is for images, the real batch and its gradient.
_CARD_SHARE = 0.25
_MIXED = 6000  # Real patches of a class that a mixture is fitted to, at most.
_MIXED_BYTES = 2**28  # Of all of them.


def build(job: Job) -> tuple[outer.Distiller, outer.DistillState]:
    """Builds the outer loop and its first state; says how much memory a gradient takes.

    Raises:
      UserError: settings do not fit each other.
    """
    settings = job.config.distill
    return learning(
        job,
        start(job),
        partial(_synthesis, job),
        outer_steps=settings.outer_steps,
        rates=settings.optimizer,
    )


def learning(
    job: Job,
    data: Distilled,
    make: Callable[[], synthesis.Synthesis],
    *,
    outer_steps: int,
    rates: Mapping[str, Any],
) -> tuple[outer.Distiller, outer.DistillState]:
    """Builds an outer loop of a job's method, and its first state.

    Args:
      job: whose cohort, network and method.
      data: what to start from.
      make: makes what is learned of the images.
      outer_steps: length of the schedule.
      rates: the settings `distill.optimizer`.

    Raises:
      UserError: settings do not fit each other.
    """
    settings = job.config.distill
    try:
        made = make()
        optimizer = outer.optimizer(outer_steps, rule=settings.label_rule, **rates)
        training = Training(inner.create(**optimiser(job)), _memory(job, data))
        step = meta_gradient.after_training(
            job.network,
            rule=settings.label_rule,
            train=WINDOWS[settings.window](settings.window_steps, training),
            view=views.synthesised(made, RATES[settings.rates]),
            augmentations=tuple(settings.augmentations),
            known_key=job.key(Use.KNOWN) if job.known else None,
            networks=settings.networks,
            at_once=settings.networks_at_once or None,
            mesh=job.mesh,
        )
        learned = parametrised(job, data, made)
    except ValueError as error:
        raise UserError(f"distill: {error}") from error
    loop = outer.distiller(step, optimizer)
    return loop, loop.init(learned, job.key(Use.LOOP))


def begun(job: Job) -> Distilled:
    """Makes what is learned, as it is before the first outer step.

    Raises:
      UserError: settings do not fit each other.
    """
    try:
        return parametrised(job, start(job), _synthesis(job))
    except ValueError as error:
        raise UserError(f"distill: {error}") from error


def parametrised(job: Job, data: Distilled, made: synthesis.Synthesis) -> Distilled:
    """Puts in place of the images what is learned of them."""
    key = jax.random.fold_in(job.key(Use.START), 1)
    return dataclasses.replace(data, images=made.init(data.images, key))


def optimiser(job: Job) -> Metadata:
    """Names the inner optimiser with all its constants, as the manifest does."""
    settings = job.config.distill
    constants = {
        "momentum": {"decay": settings.momentum},
        "adam": {"b1": 0.9, "b2": 0.999, "eps": 1e-8},
    }
    return {"name": settings.inner, **constants.get(settings.inner, {})}


def finished(job: Job, learned: Distilled) -> Distilled:
    """Makes the distilled data, as they are packaged, of what is learned.

    Where all steps share a rate, they may be gone through for more epochs than was differentiated
    through: a longer unroll learns worse, a longer training by what was learned is calmer.
    """
    settings, log_lr = job.config.distill, learned.log_lr
    if settings.replay_epochs:
        log_lr = jnp.full(settings.steps * settings.replay_epochs, log_lr.mean())
    images = _synthesis(job).synthesise(learned.images)
    return dataclasses.replace(learned, images=images, log_lr=log_lr)


def _synthesis(job: Job) -> synthesis.Synthesis:
    settings, (height, width, _) = job.config.distill, job.shape
    known: dict[str, Callable[[], synthesis.Synthesis]] = {
        "pixels": synthesis.pixels,
        "tiles": partial(synthesis.tiles, (height, width), settings.tile_factor),
        "bases": partial(synthesis.bases, settings.bases),
    }
    return known[settings.synthesis]()


def _memory(job: Job, data: Distilled) -> Memory:
    """Chooses the memory strategy, and says what it and the others would take."""
    taken, sizes = memory_sizes(job, data)
    each = ", ".join(f"{name} {size / 2**20:.3g} MiB" for name, size in sizes.items())
    count = unrolled(job, len(data.log_lr))
    job.log(f"memory of a gradient through {count} inner steps: {each}; taking {taken}")
    return Memory(taken)


def memory_sizes(job: Job, data: Distilled) -> tuple[str, dict[str, int]]:
    """Tells which memory strategy a job takes, and the bytes of one network's gradient by each."""
    settings = job.config.distill
    params = jax.eval_shape(job.network.init, job.key(Use.KNOWN))
    memory = Memory(settings.memory, _budget(job))
    loss = inner_loss(job.network, settings.label_rule)
    training = Training(inner.create(**optimiser(job)), memory)
    return plan(loss, params, data, training, unrolled(job, len(data.log_lr)))


def _budget(job: Job) -> int:
    """Bytes that one network's gradient may take: as the config says, or by the card's memory."""
    settings = job.config.distill
    if settings.memory_budget_mb or job.card_memory is None:
        return settings.memory_budget_mb << 20 or Memory().budget
    side_by_side = settings.networks_at_once or settings.networks
    return int(_CARD_SHARE * job.card_memory) // side_by_side


def unrolled(job: Job, count: int) -> int:
    """Counts the inner steps that are differentiated, of `count` in all."""
    settings = job.config.distill
    if settings.window == "all":
        return count
    if settings.window_steps > count:
        raise ValueError(
            f"`window_steps` is {settings.window_steps}, more than the {count} inner steps. "
            f"Lower it."
        )
    return settings.window_steps


def start(job: Job) -> Distilled:
    """Makes the distilled data that learning starts from, labels by their classes.

    Raises:
      UserError: a class has patches of too few patients for a mixture.
    """
    settings = job.config.distill
    common = {"epochs": settings.epochs, "lr": settings.start_lr, "rule": settings.label_rule}
    common["schedule"] = settings.start_schedule
    steps, per_step = settings.steps, settings.images_per_step
    if settings.started_from == "noise":
        return init.noise(
            job.key(Use.START),
            steps=steps,
            images_per_step=per_step,
            shape=job.shape,
            num_classes=job.classes,
            **common,
        )
    if settings.started_from == "mixture":
        classes = init.label_classes(steps, per_step, job.classes)
        return init.start(_mixed(job, np.asarray(classes)), classes, job.classes, **common)
    # A balanced batch takes the classes in turn, as `label_classes` does.
    real = job.sample("train", steps * per_step, job.key(Use.START))
    images = real.images.reshape(steps, per_step, *job.shape)
    return init.start(images, real.labels.reshape(steps, per_step), job.classes, **common)


def _mixed(job: Job, classes: np.ndarray) -> jax.Array:
    most = _MIXED_BYTES // (4 * math.prod(job.shape) * job.classes)
    pool = job.sample("train", min(_MIXED, most) * job.classes, job.key(Use.POOL))
    images, labels, patients = map(np.asarray, (pool.images, pool.labels, pool.patients))
    try:
        drawn = mixture.drawn(images, labels, patients, classes, job.key(Use.START))
    except ValueError as error:
        raise UserError(f"distill.started_from: {error}") from error
    return jnp.asarray(drawn)
