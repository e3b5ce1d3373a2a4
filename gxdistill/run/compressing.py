"""Fewer bytes for the same network: packages of rounded images, and essential weights."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from gxdistill import metrics, models, package
from gxdistill.distill import outer, synthesis
from gxdistill.package import precision
from gxdistill.pytrees import Distilled, Params
from gxdistill.run import distilling, method
from gxdistill.run.job import Job, Use

COMPRESSED = "compressed.gxd"
_ROUNDED = sorted(precision.PRECISIONS, key=lambda kind: "uint4 uint8 bfloat16 float32".index(kind))


def compress(job: Job, max_loss: float) -> Path:
    """Writes the package of a job anew, in the fewest bits that cost no more than `max_loss`.

    The images are fine-tuned through the rounding. Known initial weights are left to their seed.

    Args:
      job: that was distilled in its working folder.
      max_loss: balanced accuracy over training patches that may be given up, in points (percent).

    Returns:
      The file, `compressed.gxd`; the package stays.

    Raises:
      UserError: there is no package, or it is of other settings.
    """
    distilling.check_same(job)
    content = package.load(job.workdir / "package.gxd")
    whole = accuracy(job, content.distilled)
    for kind in _ROUNDED:
        data, grid = rounded(job, content.distilled, kind)
        loss = 100 * (whole - accuracy(job, data))
        job.say(f"images as {kind}: {loss:.2f} points of balanced accuracy lost")
        if loss <= max_loss:
            break
    path = job.workdir / COMPRESSED
    made = distilling.packaged(job, data, kind=kind, grid=grid, seeded=job.known)
    package.save(path, made)
    job.say(f"package: {path}, {package.size_bytes(path)} bytes, images as {kind}")
    return path


def accuracy(job: Job, distilled: Distilled) -> float:
    """Balanced accuracy over training patches of the networks that the data train, on average."""
    networks = distilling.replayed(job, distilled, job.config.evaluate.networks, job.key(Use.FRESH))
    return float(np.mean(balanced(job, networks)))


def balanced(job: Job, networks: Params) -> list[float]:
    """Balanced accuracy of each of R networks over one draw of training patches."""
    pool = job.sample("train", job.config.compress.patches, job.key(Use.COMPRESS))
    apply = jax.jit(
        lambda networks: jax.lax.map(
            lambda p: job.network.apply(p, pool.images).argmax(-1), networks
        )
    )
    labels = np.asarray(pool.labels)
    return [
        metrics.balanced_accuracy(one, labels, job.classes) for one in np.asarray(apply(networks))
    ]


def rounded(job: Job, data: Distilled, kind: str) -> tuple[Distilled, precision.Grid | None]:
    """Rounds distilled data to a precision; codes are fine-tuned through the rounding."""
    if kind not in precision.LEVELS:
        images = precision.rounded(np.asarray(data.images), kind, None)
        return dataclasses.replace(data, images=jnp.asarray(images)), None
    levels = precision.LEVELS[kind]
    learned = _fine_tuned(job, data, synthesis.levels(levels))
    low, high = np.asarray(learned.images["low"]), np.asarray(learned.images["high"])
    scale = np.maximum(high - low, np.float32(1e-6)) / np.float32(levels - 1)
    grid = precision.Grid(scale, low)
    images = precision.rounded(np.asarray(learned.images["values"]), kind, grid)
    return dataclasses.replace(learned, images=jnp.asarray(images)), grid


def _fine_tuned(job: Job, data: Distilled, made: synthesis.Synthesis) -> Distilled:
    """Goes on learning for a few outer steps, at a share of the rates."""
    settings, distill = job.config.compress, job.config.distill
    rates = dict(distill.optimizer)
    rates |= {name: rates[name] * settings.rate for name in ("images_lr", "labels_lr", "rates_lr")}
    loop, state = method.learning(
        job, data, lambda: made, outer_steps=settings.steps, rates={**rates, "warmup": 0}
    )
    feed = job.feed(distill.batch)
    several = outer.several_steps(loop, feed.draw, 1)
    call = jax.jit(several, compiler_options=models.compiler_options())
    given = feed.given(outer.draws_key(state.key), 0)
    for _ in range(settings.steps):
        state, _ = call(state, next(given))
    return state.distilled
