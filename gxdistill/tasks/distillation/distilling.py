"""The sending side: check the cohort, learn the distilled data, package it."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gxdistill import package, storage
from gxdistill.data import source
from gxdistill.distill import baselines, init, inner, replay
from gxdistill.errors import UserError
from gxdistill.jobs.job import Job
from gxdistill.jobs.loop import Run, Schedule
from gxdistill.jobs.problem import Problem
from gxdistill.jobs.summary import cohort_counts, keeping_quarantine, reading_of, write_summary
from gxdistill.package import precision, proof
from gxdistill.package.seeds import Use
from gxdistill.pytrees import Batch, Distilled, Learned, Metadata, Params
from gxdistill.runtime import hosts
from gxdistill.tasks.distillation import guards, method, private, releasing
from gxdistill.tasks.distillation.assessing import for_package, on_distilled
from gxdistill.tasks.distillation.private import Account
from gxdistill.tasks.distillation.real_training import ceiling

_WORST = 10.0  # Times what guessing costs: a loss beyond it is of a training that diverged.

PRIVACY = (
    "No guarantee. Nothing was added to protect the patients, and no attack was tried: distilled "
    "images may reveal training images or who took part."
)


def distil(job: Job, *, force: bool = False, problem: Problem | None = None) -> Path:
    """Learns the distilled data, resuming where it was interrupted, and packages it.

    Args:
      job: to be done.
      force: packages also what diverged.
      problem: what is learned in place of the job's own, as one that sites share.

    Returns:
      The package's file, which the first of several processes writes.

    Raises:
      UserError: the job cannot be done, its working folder is in use or of another job, or what was
        learned is worse than guessing by far.
    """
    with job.workdir.locked("gxdistill distill"):
        with keeping_quarantine(job):
            job.workdir.check_same(identity(job))
            write_summary(job, job.cohorts.source)
        data, account = _learn(job, problem or job.problem, force=force)
        path = job.workdir / "package.gxd"
        if not hosts.leads():
            return path
        kind = job.config.distill.precision
        data, grid = rounded(data, kind)
        package.save(path, make_package(job, data, kind=kind, grid=grid, account=account))
        job.log(f"package: {path}, {package.size_bytes(path)} bytes")
        return path


def identity(job: Job) -> Metadata:
    """Tells all that a package depends on; also how sites share it, where a config says so."""
    return job.identity("distill", "privacy", *(("sharing",) if "sharing" in job.config else ()))


def _learn(job: Job, problem: Problem, *, force: bool) -> tuple[Distilled, Account | None]:
    """Learns the distilled data by the job's mechanism."""
    if guards.releases_statistics(job.config):
        job.workdir.write_settings(identity(job))
        return releasing.distilled(job)
    learns = job.config.distill.outer_steps > 0
    learned, account = _outer_loop(job, problem, force=force) if learns else _start(job)
    return method.to_distilled(job.problem, job.config.distill, learned), account


def _outer_loop(job: Job, problem: Problem, *, force: bool) -> tuple[Learned, Account | None]:
    settings = job.config.distill
    per_call = settings.steps_per_call
    for name in ("outer_steps", "checkpoint_every", "evaluate_every"):
        if settings[name] % per_call:
            raise UserError(
                f"distill.{name} is {settings[name]}, not a multiple of "
                f"distill.steps_per_call, {per_call}. Change one of them."
            )
    text = json.dumps(identity(job), sort_keys=True).encode()
    hosts.check_same(hashlib.sha256(text).digest(), "config or cohort")
    steps = private.private_steps(job) if guards.is_private(job.config) else None
    if steps is None:
        loop, state = method.build(problem, settings, job.log)
        stepper = method.stepper(problem, settings, loop)
    else:
        made_by = steps.after_training_of(problem.sharing)
        loop, state = method.build(problem, settings, job.log, made_by, private.secret_key())
        stepper = steps.stepper(job, loop, problem.sharing)
    run = Run(
        what="distilling",
        stepper=stepper,
        schedule=Schedule(settings.outer_steps, settings.checkpoint_every, settings.evaluate_every),
        checkpoints=job.workdir.checkpoints,
        log=job.log,
        history=job.history,
        begin=lambda state: dataclasses.replace(state, learned=begin(job, state.learned)),
        measure=_monitor(job),
        advice=(
            f"Lower distill.start_lr (now {settings.start_lr}) or the rates of distill.optimizer, "
            f"or set distill.optimizer.ema_clip, and start in another --workdir."
        ),
        ledger=None if steps is None else steps.ledger,
        book=None if steps is None else steps.book,
    )
    state, ledger = run.accounted(state)
    _check_loss(job, force=force)
    return state.learned, None if ledger is None else Account(ledger, state.key)


def _check_loss(job: Job, *, force: bool) -> None:
    """Refuses to package what diverged and yet stayed finite."""
    guess = math.log(job.problem.classes)
    loss = job.workdir.history.last("loss")
    if not loss > _WORST * guess:
        return
    what = (
        f"The loss on real patches is {loss:.4g} after the last outer step, where guessing costs "
        f"{guess:.2g}: the training diverged, though its numbers stayed finite."
    )
    if not force:
        raise UserError(
            f"{what} Nothing was packaged. Lower distill.start_lr (now "
            f"{job.config.distill.start_lr}) or the rates of distill.optimizer, and start in "
            f"another --workdir; --force packages it nevertheless."
        )
    job.log(f"warning: {what} It is packaged nevertheless.")


def _start(job: Job) -> tuple[Learned, Account | None]:
    """Makes what is learned where nothing is to be learned."""
    learned = begin(job, method.initial_learned(job.problem, job.config.distill))
    if not guards.is_private(job.config):
        return learned, None
    return learned, Account(private.first_ledger(job.config), private.secret_key())


def begin(job: Job, learned: Learned) -> Learned:
    """Claims the working folder, and gives what is learned its first labels.

    These are of networks trained on all real patches, where that is asked: the same networks that
    an evaluation trains as the ceiling.

    Args:
      job: that begins.
      learned: as `method.initial_learned` makes it.
    """
    settings = job.config.distill
    if settings.started_labels == "networks":
        job.log("training networks on all real patches, for their labels")
        data = method.to_distilled(job.problem, settings, learned)
        data = baselines.with_teacher_labels(
            data, job.problem.network, ceiling(job), settings.label_temperature
        )
        labels = init.as_learned(data.labels, settings.label_rule)
        learned = dataclasses.replace(learned, labels=labels)
    job.workdir.write_settings(identity(job))
    return learned


def _monitor(job: Job) -> Callable[[Learned, int], dict[str, float]]:
    """Builds the periodic measure: accuracy on one balanced draw of test patches.

    It is looked at, and nothing is chosen by it. None where a network diverged.
    """
    settings, problem = job.config.distill, job.problem

    @cache
    def pool() -> Batch:
        return problem.sample("test", settings.evaluate_patches, problem.key(Use.POOL))

    @jax.jit
    def accuracy(networks: Params, pool: Batch) -> jax.Array:
        classes = jax.lax.map(lambda p: problem.network.apply(p, pool.images).argmax(-1), networks)
        return jnp.mean(classes == pool.targets)

    def measure(learned: Learned, _: int) -> dict[str, float]:
        distilled = method.to_distilled(problem, settings, learned)
        try:
            networks = replay_networks(
                job, distilled, settings.evaluate_networks, problem.key(Use.FRESH)
            )
        except UserError as error:  # too early to judge: later steps may mend it
            job.log(str(error))
            return {}
        return {"accuracy": float(accuracy(networks, pool()))}

    return measure


def replay_networks(job: Job, distilled: Distilled, count: int, key: jax.Array) -> Params:
    """Trains networks as the package means it: the known one, or `count` fresh ones."""
    known = method.starts_known(job.config.distill)
    keys = job.key(Use.KNOWN)[None] if known else jax.random.split(key, count)
    return replay.replay_many(job.problem.network, keys, distilled, **_replay_settings(job))


def _replay_settings(job: Job) -> dict[str, Any]:
    optimizer = inner.create(**method.inner_optimizer(job.config.distill))
    return {
        "rule": job.config.distill.label_rule,
        "inner": optimizer,
        "augmentations": job.config.distill.replay_augmentations,
    }


def about(
    job: Job,
    networks: Params,
    *,
    init: package.Init,
    proof: package.Proof | None,
    privacy: str,
    account: Account | None = None,
) -> package.About:
    """Fills in what a manifest says of a job, whatever was learned in it.

    Args:
      job: whose config and cohort.
      networks: trained weights of R networks, each leaf with a leading axis R: what is measured.
      init: the weights that they started from.
      proof: what a receiver's network must be; None where nothing is promised.
      privacy: what is promised to the patients.
      account: what was released of them. With one, what is measured on them stays here: counts,
        results and what images are like; and the threshold is released with noise, or not at all.
    """
    config, data, ledger = job.config, job.cohorts, None
    if account is None:
        decided, likeness, results = for_package(job, networks)
    else:
        decided, ledger = private.release_threshold(job, networks, *account)
        likeness, results = None, {}
        storage.write_json(job.workdir / private.LEDGER, ledger.to_dict())
        job.log(f"privacy: {ledger.statement()}")
    return package.About(
        name=config.name,
        purpose=config.about.purpose,
        licence=config.about.licence,
        privacy=privacy,
        cohort=None if ledger else cohort_counts(source.summary(data.source)),
        network=package.NetworkChoice(config.network.name, dict(config.network.options)),
        init=init,
        patch=data.geometry,
        reading=reading_of(job),
        image_normalisation=data.source.recipe.normalise,
        normalisation=data.normalisation,
        class_names=data.source.cohort.class_names,
        decision=decided,
        likeness=likeness,
        results=results,
        proof=proof,
        ledger=ledger.record() if ledger else None,
    )


def _distillation(job: Job, distilled: Distilled) -> package.Distillation:
    settings, releases = job.config.distill, guards.releases_statistics(job.config)
    return package.Distillation(
        steps=settings.steps,
        epochs=len(distilled.log_lr) // settings.steps,
        images_per_step=settings.images_per_step,
        # Clipped labels are read as they are.
        label_rule="raw" if settings.label_rule == "clipped" else settings.label_rule,
        loss="cross_entropy",
        inner=method.inner_optimizer(settings),
        augmentations=settings.replay_augmentations,
        started_from="statistics" if releases else settings.started_from,
        outer_steps=job.config.privacy.statistics.steps if releases else settings.outer_steps,
        settings=identity(job)["distill"],
    )


def rounded(data: Distilled, kind: str) -> tuple[Distilled, precision.CodeGrid | None]:
    """Rounds the images of distilled data to what a precision can hold.

    Returns:
      The data, and of codes the grid that they lie on.
    """
    images, grid = precision.rounded(np.asarray(data.images), kind)
    return dataclasses.replace(data, images=jnp.asarray(images)), grid


def make_package(
    job: Job,
    distilled: Distilled,
    *,
    kind: str = "float32",
    grid: precision.CodeGrid | None = None,
    seeded: bool = False,
    account: Account | None = None,
) -> package.Package:
    """Makes the package of a job: its networks are trained and measured for that.

    Args:
      job: whose method and cohort.
      distilled: what it learned, of the precision `kind`.
      kind: one of `package.PRECISIONS`.
      grid: of the images, where they are codes.
      seeded: leaves known initial weights to their seed.
      account: what was released of the patients; None where nothing is guaranteed.
    """
    config = job.config
    networks = replay_networks(job, distilled, config.evaluate.networks, job.key(Use.FRESH))
    known = method.starts_known(config.distill)
    init = package.Init(
        "seeded" if seeded else config.distill.init, seed=config.seed if known else None
    )
    promised = _prove(job, distilled) if known else None
    privacy = private.PROMISE if account else PRIVACY
    common = about(job, networks, init=init, proof=promised, privacy=privacy, account=account)
    if guards.releases_statistics(config):
        common = dataclasses.replace(common, decision=on_distilled(job, networks, distilled))
    manifest = package.Manifest(
        **vars(common),
        distillation=_distillation(job, distilled),
        precision=kind,
    )
    start = None
    if init.is_packaged:
        start = jax.tree.map(np.asarray, job.problem.network.init(job.key(Use.KNOWN)))
    return package.Package(distilled, manifest, start, grid=grid)


def _prove(job: Job, distilled: Distilled) -> package.Proof:
    network, shape = job.problem.network, job.problem.shape

    def trained(start: Params) -> Params:
        return replay.replay(network, start, distilled, **_replay_settings(job))

    return proof.prove(network, trained, network.init(job.key(Use.KNOWN)), shape)
