"""What a round takes of memory, by the number of simulated sites, which it must not depend on.

    python -m benchmarks.federated_sites --sites 4 64

The same drawn radiographs are dealt out to ever more sites. Linux only. `updates_mb` is what the
updates of all sites would take if they were held together.
"""

import argparse
import json

import jax

from benchmarks.federated_round import make_job
from benchmarks.peak_memory import growth_mb
from benchmarks.record import Measured, Recorder
from gxdistill import models
from gxdistill.package.seeds import Use
from gxdistill.tasks.federation import hospitals, simulating, training


def measure(sites: int, patients: int, *, width: int, depth: int, crop: int) -> dict[str, float]:
    """Runs a round and looks at the memory of the process.

    Args:
      sites: that take part, one after the other.
      patients: of all sites together.
      width: of the U-Net.
      depth: of the U-Net.
      crop: side of a crop in pixels.

    Returns:
      Megabytes by which the process grows at most in a round, and those of the updates of all
      sites.
    """
    job = make_job(sites, 1, width=width, depth=depth, crop=crop, patients=patients)
    data = hospitals.of_job(job)
    network, counts = simulating.network_of(job, data), simulating.sites_of(job, data)
    params = network.init(job.key(Use.KNOWN))
    feed = hospitals.place(data, data.names, job.config)
    loop = training.federated(job.config, network, counts, job.log)
    state = loop.init(params, job.key(Use.LOOP))
    program = jax.jit(loop.update, compiler_options=models.compiler_options())
    ready = program.lower(state, feed).compile()
    jax.block_until_ready(ready(state, feed))  # What the first run takes for good.
    growth = growth_mb(lambda: jax.block_until_ready(ready(state, feed)))
    updates = counts.count * training.upload_bytes(params) / 1e6
    return {"growth_mb": growth, "updates_mb": round(updates, 1)}


def main() -> None:
    """Measures, prints one line, and records it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sites", type=int, nargs="+", default=[4, 64])
    parser.add_argument("--patients", type=int, default=192)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--crop", type=int, default=32)
    Recorder.add_flags(parser)
    given = parser.parse_args()
    recorder = Recorder("federated_sites", given)
    sizes = {"width": given.width, "depth": given.depth, "crop": given.crop}
    figures = {n: measure(n, given.patients, **sizes) for n in given.sites}
    print(json.dumps(figures))
    rows = [
        Measured(f"{name}_{n}_sites", value, n=1, unit="MB")
        for n, told in figures.items()
        for name, value in told.items()
    ]
    recorder.add("federated_sites", *rows)


if __name__ == "__main__":
    main()
