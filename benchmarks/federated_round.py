"""What a round costs beside central training on as many samples, and what clipping and noise add.

    python -m benchmarks.federated_round --sites=4 --local-steps=5 --rounds=9

A U-Net on crops of drawn radiographs. Programs run in turn, so that what else the machine does
weighs on all alike; ratios are medians over rounds, of CPU seconds, which add up all threads.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from benchmarks.record import Measured, Recorder
from gxdistill import models
from gxdistill.jobs.job import Job
from gxdistill.jobs.workdir import Workdir
from gxdistill.package.seeds import Use
from gxdistill.tasks.federation import hospitals, settings, simulating, training
from gxdistill.training.steps import several_steps

Program = Callable[[], Any]


def make_job(
    sites: int, local_steps: int, *, width: int, depth: int, crop: int, patients: int = 0
) -> Job:
    """Makes a federation of phantoms whose patients, eight a site, are dealt out to the sites."""
    config = settings.default_config()
    config.name = "federated_round"
    config.data.kind = "phantom"
    config.data.update(patients=patients or 8 * sites, size=2 * crop)
    config.patch.update(size=crop, stride=crop // 2)
    config.network.options = {"width": width, "depth": depth}
    config.federation.update(deal=sites, local_steps=local_steps)
    return Job(config, Workdir(Path("nowhere")), lambda _: None)


def programs(job: Job) -> dict[str, Program]:
    """Compiles a round, one with clipping and noise, and as many central steps in one call."""
    config = job.config
    data = hospitals.of_job(job)
    network, sites = simulating.network_of(job, data), simulating.sites_of(job, data)
    start, key = network.init(job.key(Use.KNOWN)), job.key(Use.LOOP)
    together = hospitals.place(data, ("",), config)
    apart = hospitals.place(data, data.names, config)
    steps = sites.count * config.federation.local_steps
    central = training.central(config, network, steps)
    loops = {
        "round": training.federated(config, network, sites, job.log),
        "private_round": training.federated(config, network, sites, job.log, protected=True),
    }

    def compiled(call: Callable[..., Any], state: Any, feed: Any) -> Program:
        program = jax.jit(call, compiler_options=models.compiler_options())
        ready = program.lower(state, feed).compile()
        return lambda: jax.block_until_ready(ready(state, feed))

    # Not drawn before the update: a site's batch is drawn where it trains.
    several = several_steps(central, lambda feed, _: feed, steps)
    made = {"central": compiled(several, central.init(start, key), together)}
    for name, loop in loops.items():
        made[name] = compiled(loop.update, loop.init(start, key), apart)
    return made


def measure(calls: dict[str, Program], rounds: int) -> dict[str, float]:
    """Runs the programs in turn.

    Args:
      calls: from `programs`.
      rounds: timed runs of each; one before is not counted.

    Returns:
      CPU seconds of each, and the ratios of a round to central training, and of a private round to
      a round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for run in range(rounds + 1):
        for name, call in calls.items():
            began = time.process_time()
            call()
            if run:
                seconds[name].append(time.process_time() - began)

    def ratio(above: str, below: str) -> float:
        pairs = zip(seconds[above], seconds[below], strict=True)
        return round(statistics.median(a / b for a, b in pairs), 3)

    return {
        **{f"{name}_cpu_s": round(statistics.median(s), 4) for name, s in seconds.items()},
        "round_ratio": ratio("round", "central"),
        "private_ratio": ratio("private_round", "round"),
    }


def main() -> None:
    """Measures, prints one line, and records it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sites", type=int, default=4)
    parser.add_argument("--local-steps", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--crop", type=int, default=64)
    Recorder.add_flags(parser)
    given = parser.parse_args()
    recorder = Recorder("federated_round", given)
    job = make_job(
        given.sites, given.local_steps, width=given.width, depth=given.depth, crop=given.crop
    )
    figures = measure(programs(job), given.rounds)
    print(json.dumps(figures))
    rows = [
        Measured(name, value, n=given.rounds, unit="s" if name.endswith("_s") else "1")
        for name, value in figures.items()
    ]
    recorder.add("federated_round", *rows)


if __name__ == "__main__":
    main()
