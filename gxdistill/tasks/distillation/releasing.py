"""One private release of what the training patients are like, and distilled data that match it.

What is released lies in the working folder with its ledger, written at one stroke: a run that is
interrupted before has released nothing, and one that goes on releases nothing again.
"""

import json
from collections.abc import Iterator
from itertools import repeat
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gxdistill import storage
from gxdistill.distill import init
from gxdistill.errors import UserError
from gxdistill.jobs.devices import Stepper
from gxdistill.jobs.job import Job
from gxdistill.jobs.loop import Run, Schedule
from gxdistill.jobs.problem import BatchSource
from gxdistill.package.seeds import Use
from gxdistill.privacy import features, matching, statistics
from gxdistill.privacy.ledger import Ledger, calibrate
from gxdistill.privacy.statistics import Parts, Released, Statistics
from gxdistill.pytrees import Distilled
from gxdistill.runtime.console import Progress
from gxdistill.tasks.distillation import pooling, private
from gxdistill.tasks.distillation.private import Account

RELEASED = "statistics.npz"


def distilled(job: Job, described: features.Features | None = None) -> tuple[Distilled, Account]:
    """Releases statistics, or takes those released before, and matches images to them.

    Where releases of hospitals are named, they are added up, and nothing of the job's own patients
    is released.

    Args:
      job: whose training patients.
      described: the job's features, where they are made already; they are of no patient.

    Returns:
      The distilled data, and the account of what they cost; its key is of no release.

    Raises:
      UserError: settings do not fit each other, or the budget.
    """
    _check_steps(job)
    described = described or make_features(job)
    if job.config.privacy.statistics.releases:
        released, ledger = pooling.pooled(job, described)
    else:
        released, ledger = _released(job, described)
    return _matched(job, described, released), Account(ledger, private.secret_key())


def _check_steps(job: Job) -> None:
    settings = job.config.privacy.statistics
    if settings.steps % settings.checkpoint_every:
        raise UserError(
            f"privacy.statistics.steps is {settings.steps}, not a multiple of "
            f"privacy.statistics.checkpoint_every, {settings.checkpoint_every}. Change one of them."
        )
    if jax.process_count() > 1:
        raise UserError("Statistics are released by one process. Start it without --processes.")


def make_features(job: Job) -> features.Features:
    """Makes the features that a job's statistics are of."""
    settings, shape = job.config.privacy.statistics, job.problem.shape
    try:
        return features.create(
            settings.features,
            shape=shape,
            prior=settings.prior,
            count=settings.count,
            pixels=settings.pixels,
            cell=settings.cell,
        )
    except ValueError as error:
        raise UserError(f"privacy.statistics: {error}") from error


def make_parts(job: Job) -> Parts:
    """Tells how a job's release is divided."""
    return Parts(**job.config.privacy.statistics.weights)


def measured(job: Job, described: features.Features) -> Statistics:
    """Sums the statistics of all training patients; they must not leave the hospital."""
    table = job.cohorts.tables["train"]

    count = len(table.label)
    clock = Progress(job.log, "describing patches of the training patients")

    def batches(rows: slice) -> tuple[jax.Array, np.ndarray]:
        clock(rows.start, count)
        pixels = job.cohorts.read(np.arange(count)[rows])
        return jnp.asarray(pixels.images, jnp.float32) / 255, np.asarray(pixels.labels)

    job.log(f"describing {count} patches of the training patients")
    summed = statistics.summarise(described, batches, table.patient, job.problem.classes)
    clock(count, count)
    return summed


def _released(job: Job, described: features.Features) -> tuple[Released, Ledger]:
    """Releases a job's statistics once: what was released before is taken."""
    path, settings = job.workdir / RELEASED, job.config.privacy
    of = json.dumps(job.identity("privacy"), sort_keys=True)
    if path.exists():
        return _read(job, of)
    ledger = private.first_ledger(job.config)
    noise = calibrate(settings.epsilon, settings.delta)
    released, ledger = statistics.release(
        private.secret_key(), measured(job, described), make_parts(job), noise, ledger
    )
    arrays = {name: np.asarray(value) for name, value in vars(released.statistics).items()}
    deviations = {name: float(value) for name, value in released.deviations.items()}
    texts = {"of": of, "ledger": ledger.to_dict(), "deviations": deviations}
    storage.write_arrays(path, **arrays, about=np.array(storage.json_text(texts)))
    job.log(f"statistics are released: {ledger.statement()}")
    pooling.write(job, released, ledger)
    return released, ledger


def _read(job: Job, of: str) -> tuple[Released, Ledger]:
    path = job.workdir / RELEASED
    with storage.reading(path), np.load(path, allow_pickle=False) as arrays:
        held = dict(arrays)
    about = storage.parse_json(str(held.pop("about")).encode(), path)
    if about["of"] != of:
        raise UserError(
            f"{path} was released by other settings. Choose another --workdir, or the settings of "
            f"before."
        )
    job.log(f"taking the statistics released before, in {path}")
    deviations = {name: jnp.float32(value) for name, value in about["deviations"].items()}
    kept = Statistics(**{name: jnp.asarray(value) for name, value in held.items()})
    released, ledger = Released(kept, deviations), Ledger.from_dict(about["ledger"])
    if not (job.workdir / pooling.RELEASE).exists():  # A run may have ended before.
        pooling.write(job, released, ledger)
    return released, ledger


def _matched(job: Job, described: features.Features, released: Released) -> Distilled:
    """Draws images, moves them nearer to what was released, and labels them."""
    config, problem = job.config, job.problem
    settings, loop = config.privacy.statistics, config.distill
    classes = init.label_classes(loop.steps, loop.images_per_step, problem.classes)
    flat = classes.reshape(-1)
    key = problem.key(Use.START)
    images = matching.draw(key, described, released, flat, detail=settings.detail)
    if settings.steps:
        images = _moved(job, described, released, images, flat)
    weights = statistics.teacher(released)
    labels = statistics.soft_labels(described, weights, images, settings.sharpness)
    pixels = job.cohorts.normalisation(255 * images)
    data = init.from_images(
        pixels.reshape(*classes.shape, *problem.shape),
        classes,
        problem.classes,
        epochs=loop.epochs,
        lr=loop.start_lr,
        rule=loop.label_rule,
        schedule=loop.start_schedule,
    )
    learned = init.as_learned(labels.reshape(data.labels.shape), loop.label_rule)
    return Distilled(data.images, learned, data.log_lr)


def _moved(
    job: Job,
    described: features.Features,
    released: Released,
    images: jax.Array,
    classes: jax.Array,
) -> jax.Array:
    settings = job.config.privacy.statistics
    loop = matching.matcher(described, classes, rate=settings.rate, steps=settings.steps)

    def stream(*_: Any) -> Iterator[Released]:
        return repeat(released)

    source = BatchSource(lambda released, _: released, stream, reusable=True)
    run = Run(
        what="matching",
        stepper=Stepper(loop, source, steps_per_call=1),
        schedule=Schedule(settings.steps, settings.checkpoint_every),
        checkpoints=job.workdir.checkpoints,
        log=job.log,
        history=job.history,
        advice="Lower privacy.statistics.rate, and start in another --workdir.",
    )
    return jnp.asarray(run(loop.init(images, job.problem.key(Use.LOOP))).learned)
