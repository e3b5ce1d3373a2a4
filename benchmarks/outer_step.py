"""One outer step, timed: processor and clock seconds, memory, compile time, as one JSON line.

    python -m benchmarks.outer_step --network=lenet --steps=10 --epochs=3 --networks=1 --images=10 \
        --batch=1024 --repeats=25

Images are noise, for their values cost nothing; initial weights are drawn in each step. CPU seconds
add up all threads; `matmul_cpu_s` is what a 2048^3 float32 product of NumPy takes in the same
process, so that figures compare across machines. Programs are compiled anew, whatever a cache has.
"""

import argparse
import dataclasses
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peak_memory import peak_rss_mb
from benchmarks.record import Measured, Recorder, case_of
from gxdistill import models
from gxdistill.distill import init, meta_gradient, outer, truncation
from gxdistill.distill.memory import Memory
from gxdistill.distill.unroll import Training
from gxdistill.pytrees import Batch, Network
from gxdistill.training.steps import LoopState

CLASSES = 10
UNITS = {
    "median_cpu_s": "s",
    "median_s": "s",
    "peak_rss_mb": "MiB",
    "temp_mb": "MB",
    "compile_s": "s",
    "matmul_cpu_s": "s",
}
_ON_DEVICE = {"device_peak_mb": "MB"}  # Of an accelerator beside them.


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is timed; the flags bear the same names.

    Attributes:
      network: name in the zoo.
      steps: S, inner steps of an epoch.
      epochs: E.
      networks: initial weights that one outer step averages over.
      images: distilled images of an inner step.
      batch: real images.
      image_size: side in pixels.
      dtype: in which the network computes its products.
      width: channels of a ConvNet; 0 leaves the network's own.
      threads: processors to stay on; 0 for all.
      window: last inner steps that are differentiated; 0 for all.
      memory: what their gradient keeps, see `gxdistill.distill.memory`.
    """

    network: str = "lenet"
    steps: int = 10
    epochs: int = 3
    networks: int = 1
    images: int = 10
    batch: int = 1024
    image_size: int = 28
    dtype: str = "float32"
    width: int = 0
    threads: int = 0
    window: int = 0
    memory: str = "auto"

    @property
    def case(self) -> str:
        """Names the benchmark: network, S x E, and whatever is not as usual."""
        name = f"outer_step_{self.network}_{self.steps}x{self.epochs}"
        return case_of(name, self, named=3)


def median_seconds(call: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Times a call, by all processors and by the clock; the first call is not counted."""
    call()
    processor, clock = [], []
    for _ in range(repeats):
        began = time.process_time(), time.perf_counter()
        call()
        processor.append(time.process_time() - began[0])
        clock.append(time.perf_counter() - began[1])
    return statistics.median(processor), statistics.median(clock)


def _matmul_seconds() -> float:
    a, b = np.random.default_rng(0).normal(size=(2, 2048, 2048)).astype(np.float32)
    return median_seconds(lambda: a @ b, 3)[0]


def prepare(
    setting: Setting, around: Callable[[Network], Network] = lambda network: network
) -> tuple[jax.stages.Wrapped, tuple[LoopState, Batch]]:
    """Makes one outer step.

    Args:
      setting: of what.
      around: changes the network, to look into it.

    Returns:
      The jitted function `(state, batch) -> (state, loss)`, and its arguments.

    Raises:
      ValueError: the setting has no meaning.
    """
    shape = (setting.image_size, setting.image_size, 1)
    options = {"width": setting.width} if setting.width else {}
    network = around(
        models.create(setting.network, shape=shape, classes=CLASSES, dtype=setting.dtype, **options)
    )
    how = Training(memory=Memory(setting.memory))
    train = truncation.fixed_window(setting.window, how) if setting.window else truncation.full(how)
    step = meta_gradient.after_training(network, rule="raw", train=train, networks=setting.networks)
    adam = outer.optimizer(1000, images_lr=0.01, labels_lr=0.01, rates_lr=0.01)
    loop = outer.distiller(step, adam)
    distilled = init.noise(
        jax.random.key(0),
        steps=setting.steps,
        images_per_step=setting.images,
        shape=shape,
        num_classes=CLASSES,
        epochs=setting.epochs,
        lr=0.02,
        rule="raw",
    )
    rows = jnp.arange(setting.batch, dtype=jnp.int32)
    real = jax.random.normal(jax.random.key(1), (setting.batch, *shape))
    program = jax.jit(loop.update, compiler_options=models.compiler_options())
    return program, (loop.init(distilled, jax.random.key(2)), Batch(real, rows % CLASSES, rows))


def measure(setting: Setting, repeats: int) -> dict[str, float]:
    """Compiles one outer step and runs it.

    Args:
      setting: what to time.
      repeats: timed runs, of which the median is taken.

    Returns:
      The figures, by the names of `UNITS`.

    Raises:
      ValueError: the setting has no meaning.
    """
    program, arguments = prepare(setting)
    began = time.perf_counter()
    compiled = program.lower(*arguments).compile()
    compile_s = time.perf_counter() - began
    cpu_s, clock_s = median_seconds(lambda: jax.block_until_ready(compiled(*arguments)), repeats)
    memory: Any = compiled.memory_analysis()
    stats = jax.devices()[0].memory_stats()
    return {
        "median_cpu_s": round(cpu_s, 4),
        "median_s": round(clock_s, 6),
        # Before the product below adds its own.
        "peak_rss_mb": peak_rss_mb(),
        "temp_mb": round(memory.temp_size_in_bytes / 1e6, 1),
        "compile_s": round(compile_s, 2),
        "matmul_cpu_s": round(_matmul_seconds(), 4),
        **({"device_peak_mb": round(stats["peak_bytes_in_use"] / 1e6, 1)} if stats else {}),
    }


def stay_on(threads: int) -> None:
    """Starts this process again on fewer processors: libraries ask for them when imported."""
    usable = sorted(os.sched_getaffinity(0))
    if 0 < threads < len(usable):
        os.sched_setaffinity(0, usable[:threads])
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of a `Setting`."""
    for field in dataclasses.fields(Setting):
        kind, flag = type(field.default), f"--{field.name.replace('_', '-')}"
        parser.add_argument(flag, type=kind, default=field.default)


def setting_of(given: argparse.Namespace) -> Setting:
    """Takes a `Setting` from among the flags."""
    names = [field.name for field in dataclasses.fields(Setting)]
    return Setting(**{name: getattr(given, name) for name in names})


def main() -> None:
    """Measures, prints, and with `--record` appends the figures to the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_flags(parser)
    parser.add_argument("--repeats", type=int, default=25)
    parser.add_argument("--cached", action="store_true", help="take programs from JAX's cache")
    Recorder.add_flags(parser)
    given = parser.parse_args()
    setting = setting_of(given)
    stay_on(setting.threads)
    jax.config.update("jax_enable_compilation_cache", given.cached)
    recorder = Recorder("outer_step", given)
    try:
        figures = measure(setting, given.repeats)
    except ValueError as error:
        parser.error(str(error))
    print(json.dumps({"case": setting.case, **figures}))
    units = UNITS | _ON_DEVICE
    counts = {metric: given.repeats if metric.startswith("median") else 1 for metric in figures}
    rows = [Measured(*row, n=counts[row[0]], unit=units[row[0]]) for row in figures.items()]
    recorder.add(setting.case, *rows)


if __name__ == "__main__":
    main()
