"""Outer steps of the configs on the device that is there, beside what was planned for it.

    python -m benchmarks.accelerator --target=h100 --record
    python -m benchmarks.accelerator --target=cpu --configs demo --record

Images are black, for their values cost nothing; no data set is needed. One JSON line a config:
median seconds of an outer step, share of the device's peak of products (model-FLOP utilisation),
largest memory, the plan's least seconds and memory, and the plan's share of the memory. On a CPU,
memory is what the process grew by while it ran, beside the arguments, and seconds are those of
processors.
"""

import argparse
import importlib
import json
import statistics
import sys
import time
from functools import partial

import jax
import jax.numpy as jnp
import ml_collections

from benchmarks.peak_memory import growth_mb
from benchmarks.record import Measured, Recorder
from gxdistill import plan
from gxdistill.errors import UserError
from gxdistill.jobs import kinds
from gxdistill.plan import program, targets
from gxdistill.runtime import allocator, sharding
from gxdistill.runtime.console import log
from gxdistill.tasks.distillation import method

CONFIGS = ("gastric", "radiograph", "mnist", "demo")
CPU_CONFIGS = ("radiograph", "radiograph:learned", "mnist", "mnist:random_100", "demo")
UNITS = {
    "median_s": "s",
    "utilisation": "1",
    "peak_gb": "GB",
    "planned_s": "s",
    "planned_gb": "GB",
    "planned_share": "1",
}


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


def measure(config: ml_collections.ConfigDict, target: str, repeats: int) -> dict[str, float]:
    """Plans a job and runs its outer steps.

    Args:
      config: of the job.
      target: what the device is, by its description.
      repeats: timed calls, of which the median is taken.

    Returns:
      The figures, by the names of `UNITS`.

    Raises:
      UserError: the target or the config is unfit.
    """
    made = plan.make(config, target, log=log)
    devices = None if jax.default_backend() == "cpu" else tuple(jax.devices())
    settings = program.settings_of(config)
    problem = program.problem_of(config, kinds.size_of(config, None), devices)
    built = program.build(problem, settings)
    compiled = built.jitted.lower(*built.arguments).compile()
    state = method.build(problem, settings, log)[1]
    feed, mesh = jax.tree.map(_ones, built.arguments[1]), method.mesh_of(problem, settings)
    if mesh is not None:
        state, feed = jax.device_put((state, feed), sharding.replicated(mesh))
    state = jax.block_until_ready(jax.tree.map(jnp.copy, state))
    seconds: list[float] = []
    clock = time.process_time if jax.default_backend() == "cpu" else time.perf_counter

    def run(times: int) -> None:
        nonlocal state
        for _ in range(times):
            began = clock()
            state, losses = compiled(state, feed)
            jax.block_until_ready(losses)
            seconds.append(clock() - began)

    run(1)  # What the first call takes beside its work is not the program's.
    grown = growth_mb(partial(run, repeats)) * 2**20
    stats = jax.devices()[0].memory_stats() or {}
    median = statistics.median(seconds[1:]) / config.distill.steps_per_call
    found = made.compiled
    peak = stats.get("peak_bytes_in_use", grown + found.arguments)
    return {
        "median_s": median,
        "utilisation": made.flops / median / made.target.flops[made.dtype],
        "peak_gb": peak / 1e9,
        "planned_s": max(made.seconds.values()),
        "planned_gb": found.peak / 1e9,
        "planned_share": found.peak / peak,
    }


def _ones(shape: jax.ShapeDtypeStruct) -> jax.Array:
    """Makes what any index and count may be."""
    return jnp.ones(shape.shape, shape.dtype)


def main() -> None:
    """Measures, prints, and with `--record` appends the figures to the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", required=True, choices=targets.NAMES)
    parser.add_argument("--configs", nargs="+")
    parser.add_argument("--repeats", type=int, default=5)
    Recorder.add_flags(parser)
    arguments = parser.parse_args()
    allocator.give_back()  # As `gxdistill distill` does.
    for name in arguments.configs or (CPU_CONFIGS if arguments.target == "cpu" else CONFIGS):
        case = case_of(name, arguments.target)
        recorder = Recorder("accelerator", arguments)
        try:
            figures = measure(config_of(name), arguments.target, arguments.repeats)
        except UserError as error:
            sys.exit(f"benchmarks.accelerator: {name}: {error}")
        device = jax.devices()[0].device_kind
        print(json.dumps({"case": case, "device": device, "jax": jax.__version__, **figures}))
        counts = {metric: arguments.repeats if metric == "median_s" else 1 for metric in figures}
        rows = [Measured(*row, n=counts[row[0]], unit=UNITS[row[0]]) for row in figures.items()]
        recorder.add(case, *rows)


if __name__ == "__main__":
    main()
