"""One step of a U-Net's training, timed: processor seconds, memory, compile time, as a JSON line.

    python -m benchmarks.unet_step --width=16 --depth=3 --batch=8 --image-size=128 --repeats=9

Images and label maps are noise, for their values cost nothing. A step is the loss of half Dice and
half cross-entropy, its gradient, and Adam's update; several are one call, as in a job. Flags and
figures are those of `benchmarks.torch_unet`, the same step in PyTorch.
"""

import argparse
import json
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.outer_step import median_seconds, stay_on
from benchmarks.peak_memory import peak_rss_mb
from gxdistill import models
from gxdistill.pytrees import Batch
from gxdistill.segmentation.losses import segmentation_loss
from gxdistill.training.steps import several_steps
from gxdistill.training.supervised import supervised

CHANNELS, CLASSES = 3, 2
FLAGS = {"width": 16, "depth": 3, "batch": 8, "image-size": 128, "threads": 0, "repeats": 9}
PER_CALL = 5  # Steps.
_LR = 0.002


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that both sides have."""
    for name, value in FLAGS.items():
        parser.add_argument(f"--{name}", type=int, default=value)


def noise(batch: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws images `[N, H, W, C]` float32 and label maps `[N, H, W]` int32."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(batch, side, side, CHANNELS)).astype(np.float32)
    return images, rng.integers(0, CLASSES, (batch, side, side), np.int32)


def measure(given: argparse.Namespace) -> dict[str, float]:
    """Compiles a step and runs it again and again; the state goes on."""
    side = given.image_size
    network = models.create(
        "unet", shape=(side, side, CHANNELS), classes=CLASSES, width=given.width, depth=given.depth
    )
    loop = supervised(
        lambda p, batch: segmentation_loss(network.apply(p, batch.images), batch.targets),
        count=1000,
        lr=_LR,
    )
    images, labels = map(jnp.asarray, noise(given.batch, side))
    batch = Batch(images, labels, jnp.arange(given.batch))
    state = loop.init(jax.jit(network.init)(jax.random.key(0)), jax.random.key(1))
    several = several_steps(loop, lambda feed, _: feed, PER_CALL)
    program = jax.jit(several, donate_argnums=0, compiler_options=models.compiler_options())
    began = time.perf_counter()
    compiled = program.lower(state, batch).compile()
    compile_s = time.perf_counter() - began
    states = [jax.tree.map(jnp.copy, state)]  # What is given away may be there once.

    def steps() -> None:
        states[0], _ = jax.block_until_ready(compiled(states[0], batch))

    cpu_s, clock_s = (seconds / PER_CALL for seconds in median_seconds(steps, given.repeats))
    return {
        "median_cpu_s": round(cpu_s, 4),
        "median_s": round(clock_s, 6),
        "peak_rss_mb": peak_rss_mb(),
        "compile_s": round(compile_s, 2),
    }


def main() -> None:
    """Measures and prints one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_flags(parser)
    parser.add_argument("--cached", action="store_true", help="take programs from JAX's cache")
    given = parser.parse_args()
    stay_on(given.threads)
    jax.config.update("jax_enable_compilation_cache", given.cached)
    print(json.dumps(measure(given)))


if __name__ == "__main__":
    main()
