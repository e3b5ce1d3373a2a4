"""What a job would take on a device: whether it fits, how long a step is at least, what binds."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from gxdistill.distill import operations
from gxdistill.distill.memory import STRATEGIES
from gxdistill.jobs import checks, kinds
from gxdistill.jobs.problem import Problem
from gxdistill.plan import compiling, program, targets
from gxdistill.plan.compiling import Compiled
from gxdistill.plan.targets import Target
from gxdistill.runtime import platform
from gxdistill.runtime.console import Log
from gxdistill.tasks.distillation import method

_USABLE = 0.95  # Of a device's memory; the runtime keeps some for itself.


class Plan(NamedTuple):
    """A plan; bytes and operations are those of one device and one outer step.

    Attributes:
      name: of the config.
      target: what it is planned for.
      devices: their number.
      mesh: what they share, by axis.
      dtype: in which products are computed.
      networks: initial weights of one outer step.
      batch: real images of one outer step.
      inner_steps: T.
      outer_steps: of the whole run.
      strategy: what is compiled for: the memory strategy.
      compiled: what the compiler says.
      peaks: bytes of a device's memory by strategy; all but one are estimated from that one.
      flops: of products.
      moved: bytes between device and memory.
      sent: bytes handed to other devices.
      largest_batch: real images that fit, estimated.
      largest_at_once: networks side by side that fit, estimated.
    """

    name: str
    target: Target
    devices: int
    mesh: dict[str, int]
    dtype: str
    networks: int
    batch: int
    inner_steps: int
    outer_steps: int
    strategy: str
    compiled: Compiled
    peaks: dict[str, int]
    flops: float
    moved: float
    sent: float
    largest_batch: int
    largest_at_once: int

    @property
    def fits(self) -> bool:
        """Whether the job as it is configured fits a device's memory."""
        return self.peaks[self.strategy] <= _USABLE * self.target.memory

    @property
    def seconds(self) -> dict[str, float]:
        """What an outer step takes at least, by what could bind it."""
        return {
            "products": self.flops / self.target.flops[self.dtype],
            "memory": self.moved / self.target.bandwidth,
            # Twice around a ring: once to add up, once to tell all.
            "links": 2 * self.sent / self.target.link,
        }

    @property
    def expected_s(self) -> float | None:
        """What an outer step is likely to take, by what was measured on the target, if anything."""
        measured = self.target.efficiency
        if not measured:
            return None
        return max(value / measured.get(what, 1.0) for what, value in self.seconds.items())

    @property
    def best(self) -> str | None:
        """The fastest memory strategy that fits."""
        room = _USABLE * self.target.memory
        return next((name for name in STRATEGIES if self.peaks[name] <= room), None)


def make(
    config: ConfigDict,
    target: str | Target,
    *,
    log: Log,
    images: int | None = None,
    folder: Path | None = None,
) -> Plan:
    """Compiles a job's outer steps for a target and reads off what they take.

    Args:
      config: of the job.
      target: one of `NAMES`, or a description of one's own.
      log: told now and then what is done.
      images: training images; None for what the config says, or as many as the papers have.
      folder: where findings are kept; None is the user's own.

    Raises:
      UserError: the target is unknown, its compiler is missing, or the config is unfit.
    """
    known = targets.load(target) if isinstance(target, str) else target
    size = kinds.size_of(config, images)
    devices = None if known.platform == "cpu" else tuple(targets.devices(known))
    with _on_paper(known.platform):
        settings = program.settings_of(config)
        checks.check(config)
        memory = None if known.platform == "cpu" else known.memory
        problem = program.problem_of(config, size, devices, memory)
        built = program.build(problem, settings)
        folder = folder or compiling.default_folder()
        compiled = compiling.compiled(built, known, log=log, folder=folder)
    return describe(config, problem, known, built, compiled)


@contextlib.contextmanager
def _on_paper(name: str) -> Iterator[None]:
    """Traces for the platform, and computes what little there is on this machine's CPU."""
    here = jax.local_devices(backend="cpu")[0]
    with platform.planned_for(name), jax.default_device(here):
        yield


def _flops(problem: Problem, settings: ConfigDict) -> float:
    """Counts a step's products in the accelerators' form, in which convolutions are themselves."""
    with _on_paper("gpu"):
        built = program.build(problem, settings)
        traced = built.jitted.trace(*built.arguments)
    total = operations.products(traced.jaxpr.jaxpr, built.unknown)
    return total / settings.steps_per_call


def describe(
    config: ConfigDict, problem: Problem, target: Target, built: program.Program, compiled: Compiled
) -> Plan:
    """Reads off a plan from what a compiler told.

    Args:
      config: of the job.
      problem: that is planned.
      target: what for.
      built: its program.
      compiled: what the compiler told of the program.
    """
    settings = program.settings_of(config)
    arranged = method.mesh_of(problem, settings)
    mesh = {"network": 1, "data": 1} if arranged is None else dict(arranged.shape)
    networks = settings.networks // mesh["network"]
    at_once = min(
        networks, settings.networks_at_once or (1 if target.platform == "cpu" else networks)
    )
    gradients, taken = built.gradients, built.strategy
    peaks = {
        name: compiled.peak + at_once * (gradients[name] - gradients[taken]) for name in gradients
    }
    room = _USABLE * target.memory - compiled.peak
    rows = mesh["data"]
    more = int(room // (built.per_image * at_once)) * rows
    return Plan(
        name=config.name,
        target=target,
        devices=mesh["network"] * rows,
        mesh=mesh,
        dtype=config.network.options.get("dtype", "float32"),
        networks=settings.networks,
        batch=settings.batch,
        inner_steps=settings.steps * settings.epochs,
        outer_steps=settings.outer_steps,
        strategy=taken,
        compiled=compiled,
        peaks=peaks,
        flops=_flops(problem, settings),
        moved=compiled.moved / settings.steps_per_call,
        sent=compiled.sent / settings.steps_per_call,
        largest_batch=max(settings.batch + more, 0),
        largest_at_once=max(at_once + int(room // (compiled.temporaries / at_once)), 0),
    )


def as_text(plan: Plan, price: float | None = None) -> str:
    """Writes a plan as a table.

    Args:
      plan: from `make`.
      price: of one device for an hour, in any currency.
    """
    target, compiled, seconds = plan.target, plan.compiled, plan.seconds
    binding = max(seconds, key=lambda what: seconds[what])
    hours = seconds[binding] * plan.outer_steps / 3600
    rows = {
        "job": f"{plan.name}: {plan.networks} networks, {plan.batch} real images, "
        f"T = {plan.inner_steps}, {plan.dtype}",
        "target": f"{target.name}: {target.device}; mesh "
        + " x ".join(f"{side} {axis}" for axis, side in plan.mesh.items()),
        "fits": f"{'yes' if plan.fits else 'NO'}: {_gb(compiled.peak)} of {_gb(target.memory)}",
        "arguments": _gb(compiled.arguments),
        "temporaries": f"{_gb(compiled.temporaries)}, memory {plan.strategy}; compiled in "
        f"{compiled.compile_s:.0f} s",
    }
    for name, peak in plan.peaks.items():
        rows[f"peak, {name}"] = _gb(peak) + (", estimated" if name != plan.strategy else "")
    rows["outer step"] = (
        f"{plan.flops / 1e12:.4g} TFLOP, {_gb(plan.moved)} moved, {_gb(plan.sent)} sent"
    )
    rows["at least"] = (
        ", ".join(f"{value:.3g} s by {what}" for what, value in seconds.items())
        + f": {binding} bound"
    )
    if plan.expected_s is not None:
        rows["expected"] = (
            f"{plan.expected_s:.3g} s by steps measured on {target.name}; whole run "
            f"{plan.expected_s * plan.outer_steps / 3600:.3g} h"
        )
    rows["whole run"] = f"{plan.outer_steps} outer steps: at least {hours:.3g} h" + (
        "" if price is None else f", {hours * plan.devices * price:.4g} at {price:g} a device-hour"
    )
    rows["largest"] = (
        f"{plan.largest_batch} real images, or {plan.largest_at_once} networks at once; estimated"
    )
    rows["best"] = f"distill.memory={plan.best}" if plan.best else "no memory strategy fits"
    return "\n".join(f"{head:<18}{text}" for head, text in rows.items())


def _gb(size: float) -> str:
    return f"{size / 1e9:.4g} GB"
