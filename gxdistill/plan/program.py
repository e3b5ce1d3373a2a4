"""A job's outer steps as a program to be compiled, without the job's images."""

from functools import partial
from itertools import repeat
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from gxdistill.data.batches import resident, sampling
from gxdistill.distill import footprint
from gxdistill.distill.losses import real_loss
from gxdistill.distill.memory import segments
from gxdistill.errors import UserError
from gxdistill.jobs import devices
from gxdistill.jobs.kinds import Size
from gxdistill.jobs.problem import BatchSource, Problem
from gxdistill.models.cached import cached_network
from gxdistill.package.seeds import Use
from gxdistill.patching import patch_corners
from gxdistill.pytrees import Batch, PatchTable
from gxdistill.runtime.console import hush
from gxdistill.tasks.distillation import method
from gxdistill.training.steps import LoopState


def problem_of(
    config: ConfigDict,
    size: Size,
    devices: tuple[jax.Device, ...] | None,
    memory: int | None = None,
) -> Problem:
    """Makes the problem of a cohort of which only the size is known.

    Args:
      config: of the job.
      size: of the cohort.
      devices: to compile for; None for this process's only one.
      memory: bytes of one of them; None for a CPU.

    Raises:
      UserError: the network does not fit the patches.
    """
    shape, network = (*(config.patch.size,) * 2, size.shape[-1]), config.network

    def sample(split: str, count: int, key: jax.Array) -> Batch:
        raise NotImplementedError("A plan has no images to draw from; it starts from noise.")

    return Problem(
        shape=shape,
        classes=size.classes,
        network=cached_network(network.name, network.options, shape, size.classes),
        seed=config.seed,
        batches=partial(_shapes, config.patch, size),
        sample=sample,
        devices=devices,
        card_memory=memory,
    )


def _shapes(patch: ConfigDict, size: Size, batch: int) -> BatchSource:
    """Gives shapes of the images and their patches: all that are cut, whatever they show."""
    count, shape, classes = size
    corners = len(patch_corners(shape, patch.size, patch.stride, border=patch.border))

    def column(length: int, dtype: Any = jnp.int32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((length,), dtype)

    groups = [column(count * classes)] * 3
    table = PatchTable(*[column(count * corners)] * len(PatchTable._fields))  # type: ignore[arg-type]
    each = column(classes, jnp.float32), column(classes), column(classes)
    images = jax.ShapeDtypeStruct((count, *shape), jnp.uint8)
    shapes = resident.Resident(images, sampling.Sampler(table, *each, *groups))  # type: ignore[arg-type]
    # A placeholder: its values do not affect the plan.
    normalise = resident.Normalisation((0.5,) * shape[-1], (0.25,) * shape[-1])
    draw = partial(resident.draw_batch, size=patch.size, batch=batch, normalise=normalise)
    return BatchSource(draw, lambda *_: repeat(shapes), reusable=True)


_NOT_PLANNED = {
    "meta_gradient": "what a private job takes is not planned. Plan it with "
    "--config.privacy.mechanism=none; a private step takes up to twice as long.",
    "statistics": "statistics are released once, and there is no outer step to plan.",
}


def settings_of(config: ConfigDict) -> ConfigDict:
    """Returns the section `distill` to plan by: started from noise, for real images cost the same.

    Raises:
      UserError: the job has no outer step, or none that is planned for.
    """
    if (mechanism := config.privacy.mechanism) != "none":
        raise UserError(f"privacy.mechanism is {mechanism!r}: {_NOT_PLANNED[mechanism]}")
    if config.distill.outer_steps == 0:
        raise UserError(
            "distill.outer_steps is 0: the start is packaged as it is, and there is no outer step "
            "to plan. Plan with --config.distill.outer_steps=1 to see what one would take."
        )
    settings = config.distill.copy_and_resolve_references()
    settings.started_from = "noise"
    return settings


class Program(NamedTuple):
    """What is compiled, and what is known of it before.

    Attributes:
      jitted: `distill.steps_per_call` outer steps.
      arguments: shapes to lower it with.
      strategy: what its gradients keep.
      gradients: bytes of one network's gradient by memory strategy, estimated.
      per_image: bytes that one more real image takes, estimated.
      unknown: how often a loop runs that does not tell.
    """

    jitted: jax.stages.Wrapped
    arguments: tuple[LoopState, resident.Resident]
    strategy: str
    gradients: dict[str, int]
    per_image: float
    unknown: float


def build(problem: Problem, settings: ConfigDict) -> Program:
    """Builds the program of a job, for the platform that `runtime.platform.planned_for` tells.

    Args:
      problem: from `problem_of`.
      settings: from `settings_of`.

    Raises:
      UserError: settings do not fit each other.
    """
    loop, state = method.build(problem, settings, hush)
    data = method.initial_distilled(problem, settings)
    strategy, gradients = method.memory_sizes(problem, settings, data)
    source, mesh = problem.batches(settings.batch), method.mesh_of(problem, settings)
    feed = next(source.stream(problem.key(Use.LOOP), 0))
    arguments = jax.eval_shape(lambda state: state, state), feed
    jitted, _ = devices.jit_steps(loop, source, settings.steps_per_call, mesh)
    per_image, turns = _per_image(problem, settings), _turns(settings, strategy)
    return Program(jitted, arguments, strategy, gradients, per_image, turns)


def _per_image(problem: Problem, settings: ConfigDict) -> float:
    """Estimates what an image of a real batch takes, from a batch of twice as many."""
    loss = real_loss(problem.network)
    params = jax.eval_shape(problem.network.init, problem.key(Use.KNOWN))
    mesh = method.mesh_of(problem, settings)
    rows = 1 if mesh is None else mesh.devices.shape[1]
    count = settings.batch // rows

    def peak(count: int) -> int:
        images = jax.ShapeDtypeStruct((count, *problem.shape), jnp.float32)
        labels = jax.ShapeDtypeStruct((count, problem.classes), jnp.float32)
        return footprint.peak(jax.value_and_grad(loss), params, images, labels)

    images = footprint.size(jax.ShapeDtypeStruct(problem.shape, jnp.float32))
    return (peak(2 * count) - peak(count)) / count + images


def _turns(settings: ConfigDict, strategy: str) -> float:
    """How often loops run that do not tell: a segment of nested steps, or all before a window."""
    steps = settings.steps * settings.epochs
    count = method.unrolled(settings, steps)
    before = steps - count
    segment = segments(count)[-1] if strategy == "nested" else 1
    return max(segment, before / 2 if settings.window == "random" else before)
