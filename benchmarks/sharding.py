"""The same distilled images on any number of devices: how far they part after some outer steps.

    python -m benchmarks.sharding --record

Devices are simulated on a CPU. `max_difference_N` is the largest difference between what N devices
and one program without a mesh have learned: images, labels and log learning rates.
"""

import argparse
import dataclasses
import json
from pathlib import Path

import jax
import numpy as np

from benchmarks.record import Measured, Recorder
from configs import demo
from gxdistill.jobs import devices
from gxdistill.jobs.job import Job
from gxdistill.jobs.workdir import Workdir
from gxdistill.pytrees import Learned
from gxdistill.tasks.distillation import method

COUNTS = (1, 2, 4, 8)
_NETWORKS, _BATCH = 4, 32


def learned(count: int, steps: int) -> Learned:
    """Distils phantoms as `configs/demo.py:smoke` does, with more networks.

    Args:
      count: how many devices share the work; 0 for a program that knows no mesh.
      steps: outer steps.

    Returns:
      What is learned, as NumPy arrays.
    """
    config = demo.get_config("smoke")
    config.distill.update(init="random", networks=_NETWORKS, batch=_BATCH)
    config.distill.update(outer_steps=steps, steps_per_call=steps)
    job = Job(config, Workdir(Path()), lambda _: None)
    chosen = tuple(jax.devices()[:count]) or None
    problem, settings = dataclasses.replace(job.problem, devices=chosen), config.distill
    loop, state = method.build(problem, settings, job.log)
    stepper = method.stepper(problem, settings, loop)
    state, _ = stepper(devices.replicate(state, stepper.mesh), stepper.stream(state.key, 0))
    return devices.fetch(state.learned)


def apart(one: Learned, other: Learned) -> float:
    """Returns the largest difference of two distilled sets."""
    largest = jax.tree.map(lambda a, b: np.abs(a - b).max(), one, other)
    return float(max(jax.tree.leaves(largest)))


def main() -> None:
    """Measures, prints, and with `--record` appends the figures to the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--steps", type=int, default=20)
    Recorder.add_flags(parser)
    arguments = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", max(arguments.devices))
    recorder = Recorder("sharding", arguments)
    alone = learned(0, arguments.steps)
    measured = {
        f"max_difference_{count}": apart(alone, learned(count, arguments.steps))
        for count in arguments.devices
    }
    print(json.dumps({"case": "sharding", **measured}))
    recorder.add("sharding", *(Measured(*row) for row in measured.items()))


if __name__ == "__main__":
    main()
