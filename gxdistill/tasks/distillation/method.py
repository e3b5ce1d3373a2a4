"""The method: from a problem and its settings to the outer loop and what it starts from."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

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
from gxdistill.distill.unroll import Training, choose_memory
from gxdistill.errors import UserError
from gxdistill.jobs.devices import Stepper, make_mesh
from gxdistill.jobs.problem import Problem
from gxdistill.package.seeds import Use
from gxdistill.pytrees import Distilled, Learned, Metadata
from gxdistill.runtime.console import Log
from gxdistill.training.steps import Loop, LoopState

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


def build(
    problem: Problem,
    settings: ConfigDict,
    log: Log,
    after_training: Callable[..., meta_gradient.MetaGradient] | None = None,
    key: jax.Array | None = None,
) -> tuple[Loop, LoopState]:
    """Builds the outer loop and its first state; tells how much memory a gradient takes.

    Args:
      problem: to be solved.
      settings: the section `distill` of a config.
      log: told the memory.
      after_training: makes the meta-gradient; None takes the plain one, over the problem's devices.
      key: of the loop; None takes that of the problem's seed.

    Raises:
      UserError: settings do not fit each other.
    """
    return learning(
        problem,
        settings,
        initial_distilled(problem, settings),
        partial(make_synthesis, problem, settings),
        outer_steps=settings.outer_steps,
        rates=settings.optimizer,
        log=log,
        after_training=after_training,
        key=key,
    )


def learning(
    problem: Problem,
    settings: ConfigDict,
    data: Distilled,
    make: Callable[[], synthesis.Synthesis],
    *,
    outer_steps: int,
    rates: Mapping[str, Any],
    log: Log,
    after_training: Callable[..., meta_gradient.MetaGradient] | None = None,
    key: jax.Array | None = None,
) -> tuple[Loop, LoopState]:
    """Builds an outer loop by a job's method, and its first state.

    Args:
      problem: to be solved.
      settings: the section `distill` of a config.
      data: what to start from.
      make: makes what is learned of the images.
      outer_steps: length of the schedule.
      rates: the settings `distill.optimizer`.
      log: told the memory that a gradient takes.
      after_training: as of `build`.
      key: likewise.

    Raises:
      UserError: settings do not fit each other.
    """
    try:
        images = make()
        optimizer = outer.optimizer(outer_steps, rule=settings.label_rule, **rates)
        training = Training(
            inner.create(**inner_optimizer(settings)), _memory(problem, settings, data, log)
        )
        is_plain = after_training is None
        if after_training is None:
            mesh = mesh_of(problem, settings)
            after_training = partial(meta_gradient.after_training, mesh=mesh)
        meta = after_training(
            problem.network,
            rule=settings.label_rule,
            train=WINDOWS[settings.window](settings.window_steps, training),
            view=views.synthesised(images, RATES[settings.rates]),
            augmentations=tuple(settings.augmentations),
            known_key=problem.key(Use.KNOWN) if starts_known(settings) else None,
            networks=settings.networks,
            at_once=settings.networks_at_once or None,
        )
        if is_plain and problem.sharing:
            meta = problem.sharing.meta(meta)
        learned = to_learned(problem, data, images)
    except ValueError as error:
        raise UserError(f"distill: {error}") from error
    loop = outer.distiller(meta, optimizer)
    return loop, loop.init(learned, problem.key(Use.LOOP) if key is None else key)


def starts_known(settings: ConfigDict) -> bool:
    """Whether the initial weights are known; `settings` is the section `distill`."""
    return settings.init == "known"


def mesh_of(problem: Problem, settings: ConfigDict) -> jax.sharding.Mesh | None:
    """Arranges the problem's devices for the networks and the batch of an outer step.

    Raises:
      UserError: they cannot share the batch evenly.
    """
    return make_mesh(problem.devices, networks=settings.networks, batch=settings.batch)


def stepper(problem: Problem, settings: ConfigDict, loop: Loop) -> Stepper:
    """Builds what takes the outer steps of `build`."""
    return Stepper(
        loop,
        problem.batches(settings.batch),
        settings.steps_per_call,
        mesh=mesh_of(problem, settings),
        rows=settings.batch,
    )


def initial_learned(problem: Problem, settings: ConfigDict) -> Learned:
    """Makes what is learned, as it is before the first outer step.

    Raises:
      UserError: settings do not fit each other.
    """
    try:
        data = initial_distilled(problem, settings)
        return to_learned(problem, data, make_synthesis(problem, settings))
    except ValueError as error:
        raise UserError(f"distill: {error}") from error


def to_learned(problem: Problem, data: Distilled, images: synthesis.Synthesis) -> Learned:
    """Puts in place of the images what is learned of them."""
    key = jax.random.fold_in(problem.key(Use.START), 1)
    return Learned(images.init(data.images, key), data.labels, data.log_lr)


def inner_optimizer(settings: ConfigDict) -> Metadata:
    """Names the inner optimiser with all its constants, as the manifest does."""
    constants = {
        "momentum": {"decay": settings.momentum},
        "adam": {"b1": 0.9, "b2": 0.999, "eps": 1e-8},
    }
    return {"name": settings.inner, **constants.get(settings.inner, {})}


def to_distilled(problem: Problem, settings: ConfigDict, learned: Learned) -> Distilled:
    """Makes the distilled data, as they are packaged, of what is learned.

    Where all steps share a rate, they may be gone through for more epochs than was differentiated
    through: a longer unroll learns worse, a longer training by what was learned is calmer.
    """
    log_lr = learned.log_lr
    if settings.replay_epochs:
        log_lr = jnp.full(settings.steps * settings.replay_epochs, log_lr.mean())
    images = make_synthesis(problem, settings).synthesise(learned.images)
    return Distilled(images, learned.labels, log_lr)


def make_synthesis(problem: Problem, settings: ConfigDict) -> synthesis.Synthesis:
    """Makes what is learned of the images."""
    height, width, _ = problem.shape
    known: dict[str, Callable[[], synthesis.Synthesis]] = {
        "pixels": synthesis.pixels,
        "tiles": partial(synthesis.tiles, (height, width), settings.tile_factor),
        "bases": partial(synthesis.bases, settings.bases),
    }
    return known[settings.synthesis]()


def _memory(problem: Problem, settings: ConfigDict, data: Distilled, log: Log) -> Memory:
    """Chooses the memory strategy, and tells what it and the others would take."""
    strategy, sizes = memory_sizes(problem, settings, data)
    each = ", ".join(f"{name} {size / 2**20:.3g} MiB" for name, size in sizes.items())
    count = unrolled(settings, len(data.log_lr))
    log(f"memory of a gradient through {count} inner steps: {each}; taking {strategy}")
    return Memory(strategy)


def memory_sizes(
    problem: Problem, settings: ConfigDict, data: Distilled
) -> tuple[str, dict[str, int]]:
    """Tells which memory strategy is taken, and the bytes of one network's gradient by each."""
    params = jax.eval_shape(problem.network.init, problem.key(Use.KNOWN))
    memory = Memory(settings.memory, _budget(problem, settings))
    loss = inner_loss(problem.network, settings.label_rule)
    training = Training(inner.create(**inner_optimizer(settings)), memory)
    return choose_memory(loss, params, data, training, unrolled(settings, len(data.log_lr)))


def _budget(problem: Problem, settings: ConfigDict) -> int:
    """Bytes that one network's gradient may take: as the config says, or by the card's memory."""
    if settings.memory_budget_mb or problem.card_memory is None:
        return settings.memory_budget_mb << 20 or Memory().budget
    side_by_side = settings.networks_at_once or settings.networks
    return int(_CARD_SHARE * problem.card_memory) // side_by_side


def unrolled(settings: ConfigDict, count: int) -> int:
    """Counts the inner steps that are differentiated, of `count` in all."""
    if settings.window == "all":
        return count
    if settings.window_steps > count:
        raise ValueError(
            f"`window_steps` is {settings.window_steps}, more than the {count} inner steps. "
            f"Lower it."
        )
    return settings.window_steps


def initial_distilled(problem: Problem, settings: ConfigDict) -> Distilled:
    """Makes the distilled data that learning starts from, labels by their classes.

    Raises:
      UserError: a class has patches of too few patients for a mixture.
    """
    common = {"epochs": settings.epochs, "lr": settings.start_lr, "rule": settings.label_rule}
    common["schedule"] = settings.start_schedule
    steps, per_step = settings.steps, settings.images_per_step
    if settings.started_from == "noise":
        return init.noise(
            problem.key(Use.START),
            steps=steps,
            images_per_step=per_step,
            shape=problem.shape,
            num_classes=problem.classes,
            **common,
        )
    if settings.started_from == "mixture":
        classes = init.label_classes(steps, per_step, problem.classes)
        mixed = _mixed(problem, np.asarray(classes), settings.cluster_patches)
        return init.from_images(mixed, classes, problem.classes, **common)
    # A balanced batch takes the classes in turn, as `label_classes` does.
    real = problem.sample("train", steps * per_step, problem.key(Use.START))
    images = real.images.reshape(steps, per_step, *problem.shape)
    return init.from_images(
        images, real.targets.reshape(steps, per_step), problem.classes, **common
    )


def _mixed(problem: Problem, classes: np.ndarray, cluster: int) -> jax.Array:
    most = _MIXED_BYTES // (4 * math.prod(problem.shape) * problem.classes)
    count = min(_MIXED, most) * problem.classes
    pool = problem.sample("train", count, problem.key(Use.POOL))
    images, labels, patients = map(np.asarray, (pool.images, pool.targets, pool.patients))
    try:
        key = problem.key(Use.START)
        drawn = mixture.drawn(images, labels, patients, classes, key, cluster=cluster)
    except ValueError as error:
        raise UserError(f"distill.started_from: {error}") from error
    return jnp.asarray(drawn)
