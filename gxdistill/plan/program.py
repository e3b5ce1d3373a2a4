"""A job's outer steps as a program to be compiled, without the job's images."""

import dataclasses
from functools import cached_property
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections

from gxdistill.data.batches import resident, sampling
from gxdistill.distill import footprint, outer
from gxdistill.distill.losses import real_loss
from gxdistill.distill.memory import segments
from gxdistill.errors import UserError
from gxdistill.jobs import devices
from gxdistill.jobs.cohorts import Size
from gxdistill.jobs.job import Feed, Job
from gxdistill.package.seeds import Use
from gxdistill.patching import patch_corners
from gxdistill.pytrees import PatchTable
from gxdistill.tasks.distillation import method


@dataclasses.dataclass(frozen=True)
class Sketch(Job):
    """A job of a cohort of which only the size is known.

    Attributes:
      size: of the cohort.
      devices: to compile for; None for this process's own CPU.
      memory: bytes of one of them; None for a CPU.
    """

    size: Size
    devices: tuple[jax.Device, ...] | None
    memory: int | None = None

    @property
    def card_memory(self) -> int | None:
        """Bytes of one of the devices."""
        return self.memory

    @property
    def classes(self) -> int:
        """K, number of patch classes."""
        return self.size.classes

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one patch, `[H, W, C]`."""
        return (*(self.config.patch.size,) * 2, self.size.shape[-1])

    @cached_property
    def mesh(self) -> jax.sharding.Mesh | None:
        """The devices to compile for."""
        return None if self.devices is None else self.shared_out(self.devices)

    @cached_property
    def normalise(self) -> resident.Normalisation:
        """As good as any."""
        channels = self.size.shape[-1]
        return resident.Normalisation((0.5,) * channels, (0.25,) * channels)

    def feed(self, batch: int) -> Feed:
        """Gives shapes of the images and their patches: all that are cut, whatever they show."""
        count, shape, classes = self.size
        patch = self.config.patch
        corners = len(patch_corners(shape, patch.size, patch.stride, border=patch.border))

        def column(length: int, dtype: Any = jnp.int32) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((length,), dtype)

        groups = [column(count * classes)] * 3
        table = PatchTable(*[column(count * corners)] * len(PatchTable._fields))  # type: ignore[arg-type]
        each = column(classes, jnp.float32), column(classes), column(classes)
        images = jax.ShapeDtypeStruct((count, *shape), jnp.uint8)
        shapes = resident.Resident(images, sampling.Sampler(table, *each, *groups))  # type: ignore[arg-type]
        return Feed(self._draw(batch), lambda *_: repeat(shapes), lasting=True)


def sketch(
    config: ml_collections.ConfigDict,
    size: Size,
    devices: tuple[jax.Device, ...] | None,
    memory: int | None = None,
) -> Sketch:
    """Makes the sketch of a job, from noise: real images to start from cost the same.

    Raises:
      UserError: the job has no outer step.
    """
    if config.distill.outer_steps == 0:
        raise UserError(
            "distill.outer_steps is 0: the start is packaged as it is, and there is no outer step "
            "to plan. Plan with --config.distill.outer_steps=1 to see what one would take."
        )
    config = config.copy_and_resolve_references()
    config.distill.started_from = "noise"
    return Sketch(config, Path(), lambda _: None, size, devices, memory)


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
    arguments: tuple[outer.DistillState, resident.Resident]
    strategy: str
    gradients: dict[str, int]
    per_image: float
    unknown: float


def build(job: Sketch) -> Program:
    """Builds the program of a job, for the platform that `backend.planned_for` says.

    Raises:
      UserError: settings do not fit each other.
    """
    loop, state = method.build(job)
    taken, gradients = method.memory_sizes(job, method.start(job))
    feed = job.feed(job.config.distill.batch)
    given = next(feed.given(job.key(Use.LOOP), 0))
    arguments = jax.eval_shape(lambda state: state, state), given
    jitted, _ = devices.program(job, loop, feed)
    return Program(jitted, arguments, taken, gradients, _per_image(job), _turns(job, taken))


def _per_image(job: Sketch) -> float:
    """Estimates what an image of a real batch takes, from a batch of twice as many."""
    loss = real_loss(job.network)
    params = jax.eval_shape(job.network.init, job.key(Use.KNOWN))
    rows = 1 if job.mesh is None else job.mesh.devices.shape[1]
    count = job.config.distill.batch // rows

    def peak(count: int) -> int:
        images = jax.ShapeDtypeStruct((count, *job.shape), jnp.float32)
        labels = jax.ShapeDtypeStruct((count, job.classes), jnp.float32)
        return footprint.peak(jax.value_and_grad(loss), params, images, labels)

    images = footprint.size(jax.ShapeDtypeStruct(job.shape, jnp.float32))
    return (peak(2 * count) - peak(count)) / count + images


def _turns(job: Sketch, taken: str) -> float:
    """How often loops run that do not tell: a segment of nested steps, or all before a window."""
    settings = job.config.distill
    steps = settings.steps * settings.epochs
    count = method.unrolled(job, steps)
    before = steps - count
    segment = segments(count)[-1] if taken == "nested" else 1
    return max(segment, before / 2 if settings.window == "random" else before)
