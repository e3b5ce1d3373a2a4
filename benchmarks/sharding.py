"""The same distilled images on any number of devices: how far they part after some outer steps.

    python -m benchmarks.sharding --record

Devices are simulated on a CPU. `max_difference_N` is the largest difference between what N devices
and one program without a mesh have learned: images, labels and log learning rates.
"""

import argparse
import dataclasses
import json
from functools import cached_property
from pathlib import Path

import jax
import numpy as np

from benchmarks.record import Measured, Recorder
from configs import demo
from gxdistill.jobs import devices
from gxdistill.jobs.job import Job
from gxdistill.pytrees import Distilled
from gxdistill.tasks.distillation import method

COUNTS = (1, 2, 4, 8)
_NETWORKS, _BATCH = 4, 32


@dataclasses.dataclass(frozen=True)
class _Shared(Job):
    """A job on some of the devices; on none, its program knows no mesh."""

    count: int

    @cached_property
    def mesh(self) -> jax.sharding.Mesh | None:
        """The devices."""
        return self.shared_out(jax.devices()[: self.count]) if self.count else None


def learned(count: int, steps: int) -> Distilled:
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
    job = _Shared(config, Path(), lambda _: None, count)
    loop, state = method.build(job)
    state, _ = devices.stepper(job, loop, 0)(devices.copied(job, state))
    return devices.fetch(state.distilled)


def apart(one: Distilled, other: Distilled) -> float:
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
    found = {
        f"max_difference_{count}": apart(alone, learned(count, arguments.steps))
        for count in arguments.devices
    }
    print(json.dumps({"case": "sharding", **found}))
    recorder.add("sharding", *(Measured(*row) for row in found.items()))


if __name__ == "__main__":
    main()
