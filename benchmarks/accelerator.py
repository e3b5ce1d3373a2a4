"""Outer steps of the configs on the device that is there, beside what was planned for it.

    python -m benchmarks.accelerator --target=h100 --record
    python -m benchmarks.accelerator --target=cpu --configs demo --record

Images are black, for their values cost nothing; no data set is needed. One JSON line a config:
median seconds of an outer step, share of the device's peak of products (model-FLOP utilisation),
largest memory, the plan's least seconds and memory, and the plan's share of the memory; then the
roofline, the least seconds by products and by memory with the shares that were reached, what the
plan expects by steps measured before, and the hours of the whole run. The plan is that of the
compiler of the device that is there, read off the very program that is run. On a CPU, memory is
what the process grew by while it ran, beside the arguments, and seconds are those of processors.
"""

import argparse
import importlib
import json
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections

from benchmarks.peak_memory import growth_mb
from benchmarks.record import Measured, Recorder
from gxdistill import plan
from gxdistill.errors import UserError
from gxdistill.jobs import devices, kinds
from gxdistill.plan import compiling, program, targets
from gxdistill.runtime import allocator, sharding
from gxdistill.tasks.distillation import method
from gxdistill.training.steps import LoopState

CONFIGS = ("gastric", "radiograph", "mnist", "demo")
CPU_CONFIGS = ("radiograph", "radiograph:learned", "mnist", "mnist:random_100", "demo")
UNITS = {
    "median_s": "s",
    "utilisation": "1",
    "peak_gb": "GB",
    "planned_s": "s",
    "planned_gb": "GB",
    "planned_share": "1",
    # The roofline: the least seconds by products and by memory, and the shares that were reached.
    "products_s": "s",
    "memory_s": "s",
    "bandwidth_share": "1",
    "expected_s": "s",
    "compile_s": "s",
    "whole_run_h": "h",
}
SHOWN = ("median_s", "utilisation", "peak_gb", "planned_s", "planned_gb", "planned_share")


def config_of(name: str) -> ml_collections.ConfigDict:
    """Reads `configs/NAME.py`, or of `NAME:VARIANT` a variant."""
    module, _, variant = name.partition(":")
    config = importlib.import_module(f"configs.{module}").get_config(*filter(None, [variant]))
    if module == "radiograph":
        config.data.image_size = (512, 512)
    return config


def case_of(config: str, target: str) -> str:
    """Names the case of a config on a target."""
    return f"accelerator_{config}_{target}".replace(":", "_").replace("-", "_")


class Prepared(NamedTuple):
    """Outer steps compiled for the device that is there.

    Attributes:
      plan: what the device's own compiler tells of them.
      compiled: `(state, feed) -> (state, losses)`.
      state: the first, given away by the first call.
      feed: black images with their patches.
      steps: outer steps of a call.
    """

    plan: plan.Plan
    compiled: jax.stages.Compiled
    state: LoopState
    feed: Any
    steps: int


def prepare(config: ml_collections.ConfigDict, target: targets.Target) -> Prepared:
    """Compiles a job's outer steps for this device, once, and reads its plan off them.

    Raises:
      UserError: the config is unfit, or the program does not fit the device.
    """
    shared, memory = devices.all_devices(), devices.card_memory()
    settings = program.settings_of(config)
    problem = program.problem_of(config, kinds.size_of(config, None), shared, memory)
    built = program.build(problem, settings)
    began = time.perf_counter()
    compiled = built.jitted.lower(*built.arguments).compile()
    seconds = time.perf_counter() - began
    told = compiling.read(compiled, built.unknown, seconds)
    described = plan.describe(config, problem, target, built, told)
    state = method.build(problem, settings, lambda _: None)[1]
    feed, mesh = jax.tree.map(_ones, built.arguments[1]), method.mesh_of(problem, settings)
    if mesh is not None:
        state, feed = jax.device_put((state, feed), sharding.replicated(mesh))
    state = jax.block_until_ready(jax.tree.map(jnp.copy, state))
    return Prepared(described, compiled, state, feed, config.distill.steps_per_call)


def measure(
    config: ml_collections.ConfigDict, target: str, repeats: int, trace: Path | None = None
) -> dict[str, float]:
    """Compiles a job's outer steps on the device that is there, and runs them.

    Args:
      config: of the job.
      target: what the device is, by its description.
      repeats: timed calls, of which the median is taken.
      trace: folder for JAX's profile of one more call; None for none.

    Returns:
      The figures, by the names of `UNITS`.

    Raises:
      UserError: the target or the config is unfit.
    """
    prepared = prepare(config, targets.load(target))
    state, seconds = prepared.state, list[float]()
    clock = time.process_time if jax.default_backend() == "cpu" else time.perf_counter

    def run(times: int) -> None:
        nonlocal state
        for _ in range(times):
            began = clock()
            state, losses = prepared.compiled(state, prepared.feed)
            jax.block_until_ready(losses)
            seconds.append(clock() - began)

    run(1)  # What the first call takes beside its work is not the program's.
    stats = jax.devices()[0].memory_stats()
    if stats is None:  # A CPU's: what the process grew by.
        peak = growth_mb(partial(run, repeats)) * 2**20 + prepared.plan.compiled.arguments
    else:
        run(repeats)
        peak = (jax.devices()[0].memory_stats() or stats)["peak_bytes_in_use"]
    median = statistics.median(seconds[1:]) / prepared.steps
    if trace is not None:
        with jax.profiler.trace(str(trace)):
            run(1)
    return beside_plan(prepared.plan, median, peak)


def beside_plan(planned: plan.Plan, median: float, peak: float) -> dict[str, float]:
    """Lists what was measured beside what was planned.

    Args:
      planned: the plan.
      median: seconds of an outer step.
      peak: bytes of memory.

    Returns:
      The figures, by the names of `UNITS`; `expected_s` only where the target was measured before.
    """
    floors = planned.seconds
    figures = {
        "median_s": median,
        "utilisation": floors["products"] / median,
        "peak_gb": peak / 1e9,
        "planned_s": max(floors.values()),
        "planned_gb": planned.compiled.peak / 1e9,
        "planned_share": planned.compiled.peak / peak,
        "products_s": floors["products"],
        "memory_s": floors["memory"],
        "bandwidth_share": floors["memory"] / median,
        "compile_s": planned.compiled.compile_s,
        "whole_run_h": median * planned.outer_steps / 3600,
    }
    expected = planned.expected_s
    return figures if expected is None else figures | {"expected_s": expected}


def _ones(shape: jax.ShapeDtypeStruct) -> jax.Array:
    """Makes what any index and count may be."""
    return jnp.ones(shape.shape, shape.dtype)


def rows_of(figures: dict[str, float], repeats: int) -> list[Measured]:
    """Makes rows of the figures of `measure`."""
    return [
        Measured(name, value, n=repeats if name == "median_s" else 1, unit=UNITS[name])
        for name, value in figures.items()
    ]


def main() -> None:
    """Measures, prints, and with `--record` appends the figures to the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", required=True, choices=targets.NAMES)
    parser.add_argument("--configs", nargs="+")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--trace", type=Path, help="folder for a profile of each config")
    Recorder.add_flags(parser)
    arguments = parser.parse_args()
    allocator.give_back()  # As `gxdistill distill` does.
    for name in arguments.configs or (CPU_CONFIGS if arguments.target == "cpu" else CONFIGS):
        case = case_of(name, arguments.target)
        recorder = Recorder("accelerator", arguments)
        try:
            trace = arguments.trace and arguments.trace / case
            figures = measure(config_of(name), arguments.target, arguments.repeats, trace)
        except UserError as error:
            sys.exit(f"benchmarks.accelerator: {name}: {error}")
        device = jax.devices()[0].device_kind
        print(json.dumps({"case": case, "device": device, "jax": jax.__version__, **figures}))
        recorder.add(case, *rows_of(figures, arguments.repeats))


if __name__ == "__main__":
    main()
