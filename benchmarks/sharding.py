"""The same distilled images on any number of devices: how far they part after some outer steps.

    python -m benchmarks.sharding --record

Devices are simulated on a CPU. `max_difference_N` is the largest difference between what N devices
and one program without a mesh have learned: images, labels and log learning rates.
"""

import argparse
import json
import shlex
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.record import RESULTS, record
from gxdistill import models, sharding
from gxdistill.distill import init, meta_gradient, outer
from gxdistill.pytrees import Batch, Distilled

COUNTS = (1, 2, 4, 8)
_SHAPE, _CLASSES, _NETWORKS, _BATCH = (16, 16, 1), 3, 4, 32


def learned(devices: int | None, steps: int) -> Distilled:
    """Distils noise by noise, which is as far from smooth as images get.

    Args:
      devices: how many share the work; None is a program that knows no mesh.
      steps: outer steps.

    Returns:
      What is learned, as NumPy arrays.
    """
    mesh = sharding.make_mesh(_NETWORKS, jax.devices()[:devices]) if devices else None
    network = models.create("convnet", shape=_SHAPE, classes=_CLASSES, width=8, depth=2)
    step = meta_gradient.after_training(network, rule="raw", networks=_NETWORKS, mesh=mesh)
    adam = outer.optimizer(steps, images_lr=0.05, labels_lr=0.02, rates_lr=0.02)
    loop = outer.distiller(step, adam)
    start = init.noise(
        jax.random.key(0),
        steps=2,
        images_per_step=3,
        shape=_SHAPE,
        num_classes=_CLASSES,
        epochs=2,
        lr=0.02,
        rule="raw",
    )

    def draw(_: jax.Array, key: jax.Array) -> Batch:
        rows = jnp.arange(_BATCH, dtype=jnp.int32)
        return Batch(jax.random.normal(key, (_BATCH, *_SHAPE)), rows % _CLASSES, rows)

    several = outer.several_steps(loop, draw, steps)
    if mesh:
        where = sharding.replicated(mesh)
        call = jax.jit(several, in_shardings=where, out_shardings=where)
    else:
        call = jax.jit(several)
    state, _ = call(loop.init(start, jax.random.key(1)), jnp.zeros(()))
    return jax.tree.map(np.asarray, state.distilled)


def apart(one: Distilled, other: Distilled) -> float:
    """Returns the largest difference of two distilled sets."""
    largest = jax.tree.map(lambda a, b: np.abs(a - b).max(), one, other)
    return float(max(jax.tree.leaves(largest)))


def main() -> None:
    """Measures, prints, and with `--record` appends the figures to the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where --record appends")
    arguments = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", max(arguments.devices))
    began = time.perf_counter()
    alone = learned(None, arguments.steps)
    found = {
        f"max_difference_{count}": apart(alone, learned(count, arguments.steps))
        for count in arguments.devices
    }
    cpu_s, wall_s = time.process_time(), time.perf_counter() - began
    print(json.dumps({"case": "sharding", **found}))
    for metric, value in found.items() if arguments.record else ():
        record(
            "sharding",
            metric,
            value,
            unit="1",
            command=shlex.join(["python", "-m", "benchmarks.sharding", *sys.argv[1:]]),
            cpu_s=cpu_s,
            wall_s=wall_s,
            folder=arguments.results,
        )


if __name__ == "__main__":
    main()
