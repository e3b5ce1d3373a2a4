"""What bfloat16 costs: the error of a meta-gradient, and accuracy after a short distillation.

    python -m benchmarks.precision --record
    python -m benchmarks.precision --record --only mnist

`error_DTYPE` is the distance of the config's first meta-gradient, through all its inner steps, from
the one in float64, as a share of its norm: the largest among images, labels and log learning rates,
averaged over initial weights. `balanced_DTYPE` is the balanced accuracy over test patches after
`outer_steps` outer steps, a small part of the config's own; both types start from the same seed.
`cpu_s_DTYPE` is what such a run takes, with compiling; few CPUs compute in bfloat16 themselves.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import ml_collections
import numpy as np

from benchmarks.accelerator import config_of
from benchmarks.record import Measured, Recorder
from gxdistill import models, package
from gxdistill.distill import inner, meta_gradient, truncation
from gxdistill.distill.unroll import Training
from gxdistill.errors import UserError
from gxdistill.jobs.job import Job
from gxdistill.jobs.workdir import Workdir
from gxdistill.package.seeds import Use
from gxdistill.pytrees import Batch, Distilled, Network
from gxdistill.runtime.console import log
from gxdistill.tasks.distillation import distilling, method

DTYPES = ("float32", "bfloat16")
_STARTS = 3


class Row(NamedTuple):
    """What is compared.

    Attributes:
      config: its name, perhaps with a variant.
      outer_steps: of a short distillation.
    """

    config: str
    outer_steps: int


ROWS = {
    "mnist": Row("mnist", 500),
    "radiograph": Row("radiograph:learned", 300),
}


def config_for(row: Row, dtype: str) -> ml_collections.ConfigDict:
    """Makes the config of a row."""
    config = config_of(row.config)
    config.distill.outer_steps = row.outer_steps
    with config.unlocked():
        config.network.options.dtype = dtype
    return config


def gradients(
    job: Job, start: Distilled, real: Batch, dtype: str, starts: int = _STARTS
) -> list[Distilled]:
    """Computes a job's meta-gradients of the same data, for several initial weights.

    Args:
      job: whose network and method.
      start: distilled data.
      real: the batch that is judged.
      dtype: in which products are computed; all else is float32, and float64 with float64.
      starts: number of initial weights.
    """
    kind = np.float64 if dtype == "float64" else np.float32
    cast = partial(jax.tree.map, lambda x: x.astype(kind))
    options = {**job.config.network.options, "dtype": dtype}
    name, rule = job.config.network.name, job.config.distill.label_rule
    training = Training(inner.create(**method.inner_optimizer(job.config.distill)))
    with jax.enable_x64(dtype == "float64"):
        created = models.create(
            name, shape=job.problem.shape, classes=job.problem.classes, **options
        )
        network = Network(lambda key: cast(created.init(key)), created.apply)
        step = meta_gradient.after_training(network, rule=rule, train=truncation.full(training))
        program = jax.jit(step, compiler_options=models.compiler_options())
        batch = Batch(cast(real.images), real.targets, real.patients)
        keys = jax.random.split(job.key(Use.FRESH), starts)
        return [jax.tree.map(np.asarray, program(cast(start), key, batch)[1]) for key in keys]


def apart(gradient: Distilled, exact: Distilled) -> float:
    """Returns the largest relative distance among the parts of two gradients."""
    norm = np.linalg.norm
    far = jax.tree.map(lambda a, b: norm(np.ravel(a - b)) / norm(np.ravel(b)), gradient, exact)
    return float(max(jax.tree.leaves(far)))


def errors(row: Row) -> list[Measured]:
    """Measures the error of a row's gradient in each type."""
    job = Job(config_for(row, "float32"), Workdir(Path()), log)
    start = method.initial_distilled(job.problem, job.config.distill)
    real = job.cohorts.sample("train", job.config.distill.batch, job.key(Use.LOOP))
    exact = gradients(job, start, real, "float64")
    figures = []
    for dtype in DTYPES:
        rounded = gradients(job, start, real, dtype)
        far = [apart(approximate, other) for approximate, other in zip(rounded, exact, strict=True)]
        spread = statistics.stdev(far)
        figures.append(Measured(f"error_{dtype}", statistics.fmean(far), spread, _STARTS))
    return figures


def accuracies(row: Row) -> list[Measured]:
    """Distils for a while in each type, and measures the packages."""
    figures = [Measured("outer_steps", row.outer_steps)]
    for dtype in DTYPES:
        began = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            path = distilling.distil(Job(config_for(row, dtype), Workdir(Path(folder)), log))
            accuracy = package.load(path).manifest.results["balanced_patch_accuracy"]
        figures.append(
            Measured(f"balanced_{dtype}", accuracy["mean"], accuracy["std"], accuracy["n"])
        )
        figures.append(Measured(f"cpu_s_{dtype}", time.process_time() - began, unit="s"))
    return figures


def main() -> None:
    """Measures, prints, and with `--record` appends the figures to the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=tuple(ROWS), default=tuple(ROWS))
    Recorder.add_flags(parser)
    arguments = parser.parse_args()
    for name in arguments.only:
        recorder = Recorder("precision", arguments)
        try:
            row = ROWS[name]
            figures = errors(row) + accuracies(row)
        except UserError as error:
            sys.exit(f"benchmarks.precision: {name}: {error}")
        case = f"precision_{name}"
        print(json.dumps({"case": case} | {found.metric: found.value for found in figures}))
        recorder.add(case, *figures)


if __name__ == "__main__":
    main()
