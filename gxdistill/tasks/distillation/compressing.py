"""Fewer bytes for the same network: packages of rounded images, and essential weights."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from gxdistill import package
from gxdistill.distill import synthesis
from gxdistill.evaluation import metrics
from gxdistill.jobs.devices import Stepper, replicate
from gxdistill.jobs.job import Job
from gxdistill.package import precision
from gxdistill.package.seeds import Use
from gxdistill.pytrees import Distilled, Learned, Network, Params
from gxdistill.tasks.distillation import distilling, guards, method

COMPRESSED = "compressed.gxd"
_FEWEST_FIRST = ("uint4", "uint8", "bfloat16", "float32")
_AT_ONCE = 300  # Patches of one forward pass.


def compress(job: Job, max_loss: float, kinds: Sequence[str] = _FEWEST_FIRST) -> Path:
    """Writes the package of a job anew, in the fewest bits that cost no more than `max_loss`.

    The images are fine-tuned through the rounding. Known initial weights are left to their seed.

    Args:
      job: that was distilled in its working folder.
      max_loss: balanced accuracy over training patches that may be given up, in points (percent).
      kinds: precisions to try, in turn; the last is taken whatever it costs.

    Returns:
      The file, `compressed.gxd`; the package stays.

    Raises:
      UserError: there is no package, it is of other settings, or of a private job.
    """
    guards.check_no_guarantee(job.config, "Compressing")
    job.workdir.check_same(distilling.identity(job))
    content = package.load(job.workdir / "package.gxd")
    whole = accuracy(job, content.distilled)
    for kind in kinds:
        data, grid = round_images(job, content.distilled, kind)
        loss = 100 * (whole - accuracy(job, data))
        job.log(f"images as {kind}: {loss:.2f} points of balanced accuracy lost")
        if loss <= max_loss:
            break
    path = job.workdir / COMPRESSED
    known = method.starts_known(job.config.distill)
    compressed = distilling.make_package(job, data, kind=kind, grid=grid, seeded=known)
    package.save(path, compressed)
    job.log(f"package: {path}, {package.size_bytes(path)} bytes, images as {kind}")
    return path


def accuracy(job: Job, distilled: Distilled) -> float:
    """Balanced accuracy over training patches of the networks that the data train, on average."""
    count = 1 if method.starts_known(job.config.distill) else job.config.evaluate.networks
    networks = distilling.replay_networks(job, distilled, count, job.key(Use.FRESH))
    each = (jax.tree.map(lambda leaf, i=i: leaf[i], networks) for i in range(count))
    return float(np.mean([balanced(job, params, "train") for params in each]))


def balanced(job: Job, params: Params, split: str) -> float:
    """Measures a network's balanced accuracy over one balanced draw of a split's patches."""
    pool = job.cohorts.sample(split, job.config.compress.patches, job.key(Use.COMPRESS))
    apply = _applied(job.problem.network)
    parts = np.array_split(np.asarray(pool.images), -(-len(pool.targets) // _AT_ONCE))
    predicted = np.concatenate([np.asarray(apply(params, part)).argmax(-1) for part in parts])
    return metrics.balanced_accuracy(predicted, np.asarray(pool.targets), job.problem.classes)


@cache  # Compiled programs belong to the object.
def _applied(network: Network) -> jax.stages.Wrapped:
    return jax.jit(network.apply)


def round_images(
    job: Job, data: Distilled, kind: str
) -> tuple[Distilled, precision.CodeGrid | None]:
    """Rounds distilled data to a precision; codes are fine-tuned through the rounding."""
    if kind not in precision.LEVELS:
        return distilling.rounded(data, kind)
    levels = precision.LEVELS[kind]
    learned = _fine_tuned(job, data, synthesis.levels(levels))
    low, high = np.asarray(learned.images["low"]), np.asarray(learned.images["high"])
    scale = np.maximum(high - low, np.float32(1e-6)) / np.float32(levels - 1)
    grid = precision.CodeGrid(scale, low)
    images = precision.round_to(np.asarray(learned.images["values"]), kind, grid)
    return Distilled(jnp.asarray(images), learned.labels, learned.log_lr), grid


def _fine_tuned(job: Job, data: Distilled, images: synthesis.Synthesis) -> Learned:
    """Goes on learning for a few outer steps, at a share of the rates."""
    settings, distill, problem = job.config.compress, job.config.distill, job.problem
    rates = dict(distill.optimizer)
    rates |= {name: rates[name] * settings.rate for name in ("images_lr", "labels_lr", "rates_lr")}
    if not settings.steps:
        return method.to_learned(problem, data, images)
    loop, state = method.learning(
        problem,
        distill,
        data,
        lambda: images,
        outer_steps=settings.steps,
        rates={**rates, "warmup": 0},
        log=job.log,
    )
    stepper = Stepper(loop, problem.batches(distill.batch), steps_per_call=1)
    feeds = stepper.stream(state.key, 0)
    state = replicate(state, None)  # The stepper takes over its place, and the data are still used.
    for _ in range(settings.steps):
        state, _ = stepper(state, feeds)
    return state.learned
