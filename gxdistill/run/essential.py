"""The essential weights of a job: a network trained on its real patches, in few bytes."""

from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from gxdistill import baselines, package, weights
from gxdistill.errors import UserError
from gxdistill.pytrees import Network, Params
from gxdistill.run import distilling, proving
from gxdistill.run.assessing import for_package
from gxdistill.run.compressing import balanced
from gxdistill.run.job import Feed, Job, Use

PRIVACY = (
    "No guarantee. These are weights of a network that was trained on patients' images, and no "
    "attack was tried: they may reveal who took part, or what the images look like."
)
SHARES = (0.003, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2)  # Of the kernels' values that are kept.
_FINE = 1e-30  # A step at which nothing is rounded.


@cache  # Compiled programs belong to the object.
def _through(network: Network) -> Network:
    """Trains a difference to a start through its rounding; start and steps stay as they are."""

    def apply(params: Params, images: jax.Array) -> jax.Array:
        start, steps = jax.lax.stop_gradient((params["start"], params["steps"]))
        moved = weights.rounded(params["delta"], steps)
        return network.apply(jax.tree.map(jnp.add, start, moved), images)

    return Network(network.init, apply)


def _learned(job: Job, feed: Feed, params: Params, *, steps: int, use: Use) -> Params:
    key = job.key(use)
    return baselines.train_on_real(
        _through(job.network),
        feed.draw,
        feed.given(key, 0),
        params,
        key,
        steps=steps,
        lr=job.config.evaluate.ceiling.lr,
    )


def feed_of(job: Job) -> Feed:
    """Makes what `trained` and `coded` draw real patches from; one object, compiled for once."""
    return job.feed(job.config.evaluate.ceiling.batch)


def trained(job: Job, feed: Feed) -> tuple[Params, Params]:
    """Trains the network on all real patches, from the start that the job's seed tells.

    Returns:
      The start, and the difference that training made.
    """
    start = job.network.init(job.key(Use.KNOWN))
    zeros = jax.tree.map(jnp.zeros_like, start)
    steps = jnp.full(len(jax.tree.leaves(start)), _FINE, jnp.float32)
    params = {"start": start, "delta": zeros, "steps": steps}
    learned = _learned(job, feed, params, steps=job.config.evaluate.ceiling.steps, use=Use.CEILING)
    return start, learned["delta"]


def coded(job: Job, feed: Feed, start: Params, delta: Params, share: float) -> weights.Codes:
    """Rounds a difference such that a share of its kernels is left, and learns on through that.

    Args:
      job: whose patches and settings.
      feed: from `feed_of`.
      start: from `trained`.
      delta: likewise.
      share: of the kernels' values, from 0 to 1.
    """
    steps = weights.steps_of(delta, weights.threshold(delta, share))
    params = {"start": start, "delta": delta, "steps": jnp.asarray(steps)}
    learned = _learned(job, feed, params, steps=job.config.compress.steps, use=Use.COMPRESS)
    return weights.codes(learned["delta"], steps)


def compress(job: Job, max_loss: float) -> Path:
    """Trains a network on a job's real patches, and writes it in the fewest bytes.

    Args:
      job: whose patches, network and seed.
      max_loss: balanced accuracy over training patches that may be given up, in points (percent).

    Returns:
      The file, `weights.gxw` in the working folder.

    Raises:
      UserError: no share of the weights loses so little.
    """
    feed = feed_of(job)
    start, delta = trained(job, feed)
    whole = balanced(job, jax.tree.map(jnp.add, start, delta), "train")
    for share in SHARES:
        codes = coded(job, feed, start, delta, share)
        loss = 100 * (whole - balanced(job, weights.restored(start, codes), "train"))
        job.say(f"{share:.1%} of the kernels kept: {loss:.2f} points of balanced accuracy lost")
        if loss <= max_loss:
            break
    else:
        raise UserError(
            f"Kept {SHARES[-1]:.0%} of its kernels, the network loses {loss:.2f} points. Raise "
            f"--max-loss, or compress.steps (now {job.config.compress.steps})."
        )
    path = job.workdir / "weights.gxw"
    content = weights.pack(codes)
    package.save_weights(path, _manifest(job, start, codes), content)
    size, count = package.size_bytes(path), sum(leaf.size for leaf in jax.tree.leaves(start))
    job.say(f"essential weights: {path}, {size} bytes, {size / (4 * count):.2%} of float32")
    return path


def _manifest(job: Job, start: Params, codes: weights.Codes) -> dict[str, Any]:
    params = weights.restored(start, codes)
    decided, results = for_package(job, jax.tree.map(lambda leaf: leaf[None], params))
    return {
        **distilling.about(job),
        "init": {"rule": "seeded", "seed": job.config.seed},
        "decision": decided,
        "results": results,
        "privacy": PRIVACY,
        "proof": proving.prove(
            job.network, lambda start: weights.restored(start, codes), start, job.shape
        ),
    }
