"""Meta-gradients of the device that is there beside those of the CPU in float64.

A step of `benchmarks.gpu`. `error_float32` is with products in all of float32's digits,
`error_default` with those that the device takes by itself (TF32 on a GPU), `error_bfloat16` with
operands in bfloat16; `outside_tolerance` counts those that are larger than what the table
"Precision" of benchmarks/README.md makes expect.
"""

import statistics
from pathlib import Path

import jax
import numpy as np

from benchmarks import precision
from benchmarks.accelerator import config_of
from benchmarks.gpu_context import Context
from benchmarks.record import Measured
from gxdistill.jobs.job import Job
from gxdistill.jobs.workdir import Workdir
from gxdistill.package.seeds import Use
from gxdistill.pytrees import Batch, Distilled
from gxdistill.runtime import platform
from gxdistill.runtime.console import log
from gxdistill.tasks.distillation import method

# Ten times the largest error of float32 in the table; its largest of bfloat16, and two deviations.
TOLERANCES = {"error_float32": 2e-5, "error_bfloat16": 0.65}
_KINDS = {
    "error_float32": ("float32", "highest"),
    "error_default": ("float32", None),
    "error_bfloat16": ("bfloat16", None),
}
_STARTS = 3


def compare(context: Context) -> None:
    """Records the errors of the demo's meta-gradient, and of the digits' where they are there."""
    _compare(context, "demo:smoke" if context.small else "demo", "precision_demo")
    if context.data is not None and not context.small:
        _compare(context, "mnist", "precision_mnist")


def _compare(context: Context, config: str, case: str) -> None:
    settings = config_of(config)
    if settings.data.kind == "mnist":
        settings.data.path = str(context.data / "mnist") if context.data else settings.data.path
    job = Job(settings, Workdir(Path()), log)
    start, real = jax.tree.map(
        np.asarray,
        (
            method.initial_distilled(job.problem, settings.distill),
            job.cohorts.sample("train", settings.distill.batch, job.key(Use.LOOP)),
        ),
    )
    rows = errors(job, start, real)
    outside = sum(row.value > TOLERANCES.get(row.metric, np.inf) for row in rows)
    context.add(case, *rows, Measured("outside_tolerance", outside))


def errors(job: Job, start: Distilled, real: Batch) -> list[Measured]:
    """Measures how far the device's meta-gradients are from the CPU's in float64.

    Args:
      job: whose network and method.
      start: distilled data, NumPy arrays.
      real: the batch that is judged, NumPy arrays.
    """
    with platform.planned_for("cpu"), jax.default_device(jax.devices("cpu")[0]):
        exact = precision.gradients(job, start, real, "float64", _STARTS)
    rows = []
    for metric, (dtype, products) in _KINDS.items():
        with jax.default_matmul_precision(products):
            gradients = precision.gradients(job, start, real, dtype, _STARTS)
        far = [precision.apart(*pair) for pair in zip(gradients, exact, strict=True)]
        rows.append(Measured(metric, statistics.fmean(far), statistics.stdev(far), _STARTS))
    return rows
