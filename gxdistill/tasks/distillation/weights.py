"""The essential weights of a job: a network trained on its real patches, in few bytes."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp

from gxdistill import package
from gxdistill.errors import UserError
from gxdistill.jobs.job import Job
from gxdistill.jobs.problem import BatchSource
from gxdistill.package import proof, shared_values
from gxdistill.package.seeds import Use
from gxdistill.pytrees import Batch, Network, Params
from gxdistill.tasks.distillation import distilling, guards
from gxdistill.tasks.distillation.compressing import balanced
from gxdistill.tasks.distillation.real_training import make_stepper, train
from gxdistill.training.losses import cross_entropy
from gxdistill.training.supervised import classification_loss, supervised

PRIVACY = (
    "No guarantee. These are weights of a network that was trained on patients' images, and no "
    "attack was tried: they may reveal who took part, or what the images look like."
)
SHARES = (0.002, 0.01, 0.03, 0.06, 0.08, 0.1, 0.15, 0.2)  # Of values, for each weight.


Fixed = tuple[Params, Params, Params]  # The start, its factors, the weights of the whole network.


def _shared_apply(network: Network, fineness: int) -> Callable[..., jax.Array]:
    """Builds the network that shared values move, `(values, fixed, images) -> logits`."""

    def apply(values: jax.Array, fixed: Fixed, images: jax.Array) -> jax.Array:
        start, factors, _ = fixed
        moved = shared_values.moved(start, factors, shared_values.round_values(values), fineness)
        return network.apply(moved, images)

    return apply


def halfway_loss(network: Network, fineness: int) -> Callable[..., jax.Array]:
    """Builds the loss of values, through their rounding: `(values, (batch, fixed)) -> scalar`.

    It asks for the middle between a patch's class and what the trained network thinks of it. After
    Hinton et al. 2015, https://arxiv.org/abs/1503.02531: of classes alone, few values learn the
    training patches by heart; of the network alone, they learn less than it knows.
    """
    apply = _shared_apply(network, fineness)

    def loss(values: jax.Array, given: tuple[Batch, Fixed]) -> jax.Array:
        batch, fixed = given
        thought = jax.nn.softmax(network.apply(fixed[2], batch.images))
        wanted = (thought + jax.nn.one_hot(batch.targets, thought.shape[-1])) / 2
        return cross_entropy(apply(values, fixed, batch.images), wanted)

    return loss


def with_fixed(source: BatchSource, fixed: Fixed) -> BatchSource:
    """Gives a loss fixed values beside each batch; as constants they would be compiled in."""
    return BatchSource(
        lambda feed, key: (source.draw(feed[0], key), feed[1]),  # type: ignore[arg-type, return-value]
        lambda *chosen: ((feed, fixed) for feed in source.stream(*chosen)),
        source.reusable,
    )


def trained(job: Job) -> tuple[Params, Params]:
    """Trains the network on all real patches, from the start that the job's seed tells.

    Returns:
      The start, and the trained weights.
    """
    start, settings = job.problem.network.init(job.key(Use.KNOWN)), job.config.evaluate.ceiling
    loss = classification_loss(job.problem.network)
    loop = supervised(loss, count=settings.steps, lr=settings.lr)
    params = train(
        job,
        loop.init(start, job.key(Use.CEILING)),
        make_stepper(loop, job.problem.batches(settings.batch), settings.steps),
        steps=settings.steps,
        what="training the whole network",
        folder=job.workdir / "weights/whole",
        depends_on={"whole": dict(settings)},
        advice=f"Lower evaluate.ceiling.lr (now {settings.lr}).",
    )
    return start, params


def coded(job: Job, start: Params, whole: Params, share: float) -> shared_values.Codes:
    """Trains a difference to the start that a few shared values tell, through their rounding.

    It is trained on real patches, half on their classes and half on the trained network's answers.

    Args:
      job: whose patches and settings.
      start: from `trained`.
      whole: from `trained`, too.
      share: values for each weight, from 0 to 1.
    """
    fineness, settings = shared_values.fineness_of(start, share), job.config.compress.weights
    loss = halfway_loss(job.problem.network, fineness)
    loop = supervised(loss, count=settings.steps, lr=settings.lr, decay=settings.decay)
    source = job.problem.batches(job.config.evaluate.ceiling.batch)
    fixed = start, shared_values.factors(start), whole
    values = train(
        job,
        loop.init(jnp.zeros(sum(shared_values.counts(start, fineness))), job.key(Use.COMPRESS)),
        make_stepper(loop, with_fixed(source, fixed), settings.steps),
        steps=settings.steps,
        what=f"training {share:.2%} of the values",
        folder=job.workdir / f"weights/values{fineness}",
        depends_on={"values": dict(settings), "whole": dict(job.config.evaluate.ceiling)},
        advice=f"Lower compress.weights.lr (now {settings.lr}).",
    )
    return shared_values.codes(values, fineness)


def compress(job: Job, max_loss: float) -> Path:
    """Trains a network on a job's real patches, and writes it in the fewest bytes.

    Args:
      job: whose patches, network and seed.
      max_loss: balanced accuracy over training patches that may be given up, in points (percent).

    Returns:
      The file, `weights.gxw` in the working folder.

    Raises:
      UserError: no number of values loses so little, or the job is private.
    """
    guards.check_no_guarantee(job.config, "A network of essential weights")
    start, params = trained(job)
    before = balanced(job, params, "train")
    for share in SHARES:
        codes = coded(job, start, params, share)
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


def _manifest(job: Job, start: Params, codes: shared_values.Codes) -> package.WeightsManifest:
    problem, init = job.problem, package.Init("seeded", job.config.seed)

    def restore(start: Params) -> Params:
        return shared_values.restored(start, codes)

    networks = jax.tree.map(lambda leaf: leaf[None], restore(start))
    promised = proof.prove(problem.network, restore, start, problem.shape)
    common = distilling.about(job, networks, init=init, proof=promised, privacy=PRIVACY)
    return package.WeightsManifest(**vars(common))
