"""Networks trained on what a distilled set must beat: as many real patches, means, centres."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from functools import partial

import jax

from gxdistill.distill import baselines, inner, replay
from gxdistill.jobs.job import Job
from gxdistill.package.seeds import Use
from gxdistill.pytrees import Batch, Distilled, Params
from gxdistill.tasks.distillation import method
from gxdistill.tasks.distillation.real_training import initial_weights

_CHOICES: dict[str, Callable[..., Distilled]] = {
    "random_real": baselines.random_real,
    "class_means": baselines.class_means,
    "kmeans_centres": baselines.kmeans_centres,
}
_POOL_PER_CLASS = 512  # Real patches that a rate is chosen on, at least.


def trained(job: Job, distilled: Distilled, teachers: Params) -> Iterator[tuple[str, Params]]:
    """Trains networks on each baseline, as they are trained on the distilled set.

    Args:
      job: whose training patches and settings.
      distilled: has as many images, steps and epochs.
      teachers: give soft labels to real patches, see `baselines.with_teacher_labels`.

    Yields:
      Name of a baseline, and the weights of `evaluate.baseline_networks` networks, each leaf with a
      leading axis of them.
    """
    pool = _pool(job, math.prod(distilled.images.shape[:2]))

    def choose_soft(pool: Batch, like: Distilled, key: jax.Array) -> Distilled:
        real = baselines.random_real(pool, like, key)
        # As the networks give them: what temperature suits drawn images weakens real ones.
        return baselines.with_teacher_labels(real, job.problem.network, teachers)

    for name, choose in {**_CHOICES, "random_real_soft": choose_soft}.items():
        job.log(f"evaluating the baseline {name}")
        yield name, _networks(job, partial(choose, pool, distilled), pool)


def _pool(job: Job, images: int) -> Batch:
    """Draws real patches: so many that `images` of them differ, for a draw may repeat a patch."""
    classes = job.problem.classes
    per_class = max(_POOL_PER_CLASS, 2 * math.ceil(images / classes))
    return job.cohorts.sample("train", per_class * classes, job.key(Use.POOL))


def _networks(job: Job, choose: Callable[[jax.Array], Distilled], pool: Batch) -> Params:
    """Trains networks on draws of a baseline, all at the rate that serves the first best."""
    loop, params, network = job.config.distill, [], job.problem.network
    train = partial(
        replay.replay,
        rule="raw",
        inner=inner.create(**method.inner_optimizer(loop)),
        augmentations=loop.replay_augmentations,
    )
    rates: jax.Array | None = None
    for key in jax.random.split(job.key(Use.BASELINE), job.config.evaluate.baseline_networks):
        start, draws, data = initial_weights(job, key), replay.draws_of(key), choose(key)
        once = partial(train, network, start, key=draws)
        if rates is None:
            rates = baselines.with_best_rate(
                network, data, pool, once, schedule=loop.start_schedule
            ).log_lr
        params.append(once(dataclasses.replace(data, log_lr=rates)))
    return replay.stacked(params)
