"""One private outer step beside a plain one of as many real images, timed in turn.

    python -m benchmarks.private_step --network=lenet --steps=10 --epochs=3 --patients=128 \
        --patches=8 --repeats=15

The private step clips by the patient at the trained weights, adds noise and pulls back once; with
`--place=distilled` each patient is pulled back by itself. All patients of the sample are there, as
many as images of the plain step over `--patches`. CPU seconds add up all threads; images are noise.
"""

import argparse
import dataclasses
import json
import statistics
import time

import jax
import jax.numpy as jnp

from benchmarks.record import Measured, Recorder, case_of
from gxdistill import models
from gxdistill.distill import init, meta_gradient, outer
from gxdistill.privacy import meta_gradient as private
from gxdistill.privacy.sampling import PatientBatch
from gxdistill.pytrees import Batch

CLASSES = 10


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is timed; the flags bear the same names.

    Attributes:
      network: name in the zoo.
      steps: S, inner steps of an epoch.
      epochs: E.
      images: distilled images of an inner step.
      patients: of a step.
      patches: real images of each.
      image_size: side in pixels.
      place: where a patient's contribution is clipped.
    """

    network: str = "lenet"
    steps: int = 10
    epochs: int = 3
    images: int = 10
    patients: int = 128
    patches: int = 8
    image_size: int = 28
    place: str = "weights"

    @property
    def case(self) -> str:
        """Names the benchmark by whatever is not as usual."""
        return case_of("private_step", self)


def programs(setting: Setting) -> dict[str, tuple]:
    """Compiles the two steps; each with its arguments."""
    shape = (setting.image_size, setting.image_size, 1)
    network = models.create(setting.network, shape=shape, classes=CLASSES)
    count = setting.patients * setting.patches
    targets = jnp.arange(count, dtype=jnp.int32) % CLASSES
    real = jax.random.normal(jax.random.key(1), (count, *shape))
    each, present = (setting.patients, setting.patches), jnp.ones(setting.patients, bool)
    sample = PatientBatch(
        real.reshape(*each, *shape), targets.reshape(each), present=present, counted=present
    )
    steps = {
        "plain": (meta_gradient.after_training(network, rule="raw"), Batch(real, targets, targets)),
        "private": (
            private.after_training(
                network,
                rule="raw",
                clip=1.0,
                noise_multiplier=1.0,
                divisor=setting.patients,
                place=setting.place,
            ),
            sample,
        ),
    }
    adam = outer.optimizer(1000, images_lr=0.01, labels_lr=0.01, rates_lr=0.01)
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
    compiled = {}
    for name, (step, batch) in steps.items():
        loop = outer.distiller(step, adam)
        arguments = loop.init(distilled, jax.random.key(2)), batch
        program = jax.jit(loop.update, compiler_options=models.compiler_options())
        compiled[name] = program.lower(*arguments).compile(), arguments
    return compiled


def measure(repeats: int, compiled: dict[str, tuple]) -> dict[str, float]:
    """Runs both steps in turn.

    Args:
      repeats: timed runs of each.
      compiled: from `programs`.

    Returns:
      Median CPU seconds of each, and their ratio.
    """
    seconds: dict[str, list[float]] = {name: [] for name in compiled}
    for turn in range(repeats + 1):
        for name, (program, arguments) in compiled.items():
            began = time.process_time()
            jax.block_until_ready(program(*arguments))
            if turn:  # The first is no measure.
                seconds[name].append(time.process_time() - began)
    plain, with_noise = (statistics.median(seconds[name]) for name in ("plain", "private"))
    return {
        "plain_cpu_s": round(plain, 5),
        "private_cpu_s": round(with_noise, 5),
        "cpu_ratio": round(with_noise / plain, 3),
    }


def main() -> None:
    """Measures, prints, and with `--record` appends the figures to the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    for field in dataclasses.fields(Setting):
        flag = f"--{field.name.replace('_', '-')}"
        parser.add_argument(flag, type=type(field.default), default=field.default)
    parser.add_argument("--repeats", type=int, default=15)
    Recorder.add_flags(parser)
    given = parser.parse_args()
    setting = Setting(
        **{field.name: getattr(given, field.name) for field in dataclasses.fields(Setting)}
    )
    recorder = Recorder("private_step", given)
    figures = measure(given.repeats, programs(setting))
    print(json.dumps({"case": setting.case, **figures}))
    rows = [
        Measured(name, value, n=given.repeats, unit="1" if name == "cpu_ratio" else "s")
        for name, value in figures.items()
    ]
    recorder.add(setting.case, *rows)


if __name__ == "__main__":
    main()
