"""The essential weights of a job: a network trained on its real patches, in few bytes."""

from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from gxdistill import package
from gxdistill.distill import baselines
from gxdistill.distill.losses import cross_entropy
from gxdistill.errors import UserError
from gxdistill.jobs.job import Feed, Job
from gxdistill.package import proof, shared_values
from gxdistill.package.seeds import Use
from gxdistill.pytrees import Batch, Network, Params
from gxdistill.tasks.distillation import distilling
from gxdistill.tasks.distillation.assessing import for_package
from gxdistill.tasks.distillation.compressing import balanced

PRIVACY = (
    "No guarantee. These are weights of a network that was trained on patients' images, and no "
    "attack was tried: they may reveal who took part, or what the images look like."
)
SHARES = (0.002, 0.01, 0.03, 0.06, 0.08, 0.1, 0.15, 0.2)  # Of values, for each weight.


@cache  # Compiled programs belong to the object.
def _shared(network: Network, fineness: int) -> Network:
    """Trains the values that weights share, through their rounding."""

    def apply(
        params: tuple[jax.Array, tuple[Params, Params, Params]], images: jax.Array
    ) -> jax.Array:
        values, (start, factors, _) = params
        return network.apply(
            shared_values.moved(start, factors, shared_values.rounded(values), fineness), images
        )

    return Network(network.init, apply)


@cache
def _halfway(network: Network) -> baselines.RealLoss:
    """Asks for the middle between a patch's class and what the trained network thinks of it.

    After Hinton et al. 2015, https://arxiv.org/abs/1503.02531: of classes alone, few values learn
    the training patches by heart; of the network alone, they learn less than it knows.
    """

    def loss(shared: Network, params: Params, batch: Batch) -> jax.Array:
        _, (_, _, whole) = params
        thought = jax.nn.softmax(network.apply(whole, batch.images))
        wanted = (thought + jax.nn.one_hot(batch.labels, thought.shape[-1])) / 2
        return cross_entropy(shared.apply(params, batch.images), wanted)

    return loss


def feed_of(job: Job) -> Feed:
    """Makes what `trained` and `coded` draw real patches from; one object, compiled for once."""
    return job.feed(job.config.evaluate.ceiling.batch)


def trained(job: Job, feed: Feed) -> tuple[Params, Params]:
    """Trains the network on all real patches, from the start that the job's seed tells.

    Returns:
      The start, and the trained weights.
    """
    start, key = job.network.init(job.key(Use.KNOWN)), job.key(Use.CEILING)
    settings = job.config.evaluate.ceiling
    given = feed.given(key, 0)
    return start, baselines.train_on_real(
        job.network, feed.draw, given, start, key, steps=settings.steps, lr=settings.lr
    )


def coded(job: Job, feed: Feed, start: Params, whole: Params, share: float) -> shared_values.Codes:
    """Trains a difference to the start that a few shared values tell, through their rounding.

    It is trained on real patches, half on their classes and half on the trained network's answers.

    Args:
      job: whose patches and settings.
      feed: from `feed_of`.
      start: from `trained`.
      whole: from `trained`, too.
      share: values for each weight, from 0 to 1.
    """
    fineness, key = shared_values.fineness_of(start, share), job.key(Use.COMPRESS)
    settings = job.config.compress.weights
    learned = baselines.train_on_real(
        _shared(job.network, fineness),
        feed.draw,
        feed.given(key, 0),
        jnp.zeros(sum(shared_values.counts(start, fineness))),
        key,
        steps=settings.steps,
        lr=settings.lr,
        decay=settings.decay,
        fixed=(start, shared_values.factors(start), whole),
        loss=_halfway(job.network),
    )
    return shared_values.codes(learned, fineness)


def compress(job: Job, max_loss: float) -> Path:
    """Trains a network on a job's real patches, and writes it in the fewest bytes.

    Args:
      job: whose patches, network and seed.
      max_loss: balanced accuracy over training patches that may be given up, in points (percent).

    Returns:
      The file, `weights.gxw` in the working folder.

    Raises:
      UserError: no number of values loses so little.
    """
    feed = feed_of(job)
    start, params = trained(job, feed)
    before = balanced(job, params, "train")
    for share in SHARES:
        codes = coded(job, feed, start, params, share)
        loss = 100 * (before - balanced(job, shared_values.restored(start, codes), "train"))
        job.log(f"{len(codes.values)} values: {loss:.2f} points of balanced accuracy lost")
        if loss <= max_loss:
            break
    else:
        raise UserError(
            f"With {len(codes.values)} values, the network loses {loss:.2f} points. Raise "
            f"--max-loss, or compress.weights.steps (now {job.config.compress.weights.steps})."
        )
    path = job.workdir / "weights.gxw"
    content = shared_values.pack(codes)
    package.save_weights(path, _manifest(job, start, codes), content)
    size, count = package.size_bytes(path), sum(leaf.size for leaf in jax.tree.leaves(start))
    job.log(f"essential weights: {path}, {size} bytes, {size / (4 * count):.2%} of float32")
    return path


def _manifest(job: Job, start: Params, codes: shared_values.Codes) -> dict[str, Any]:
    params = shared_values.restored(start, codes)
    decided, results = for_package(job, jax.tree.map(lambda leaf: leaf[None], params))
    return {
        **distilling.about(job),
        "init": {"rule": "seeded", "seed": job.config.seed},
        "decision": decided,
        "results": results,
        "privacy": PRIVACY,
        "proof": proof.prove(
            job.network, lambda start: shared_values.restored(start, codes), start, job.shape
        ),
    }
