"""The sending side: check the cohort, learn the distilled data, package it."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gxdistill import package
from gxdistill.data import source
from gxdistill.distill import baselines, init, inner, outer, replay
from gxdistill.errors import UserError
from gxdistill.jobs import devices, workdir
from gxdistill.jobs.history import History
from gxdistill.jobs.job import Job
from gxdistill.package import proof
from gxdistill.package.seeds import Use
from gxdistill.pytrees import Batch, Distilled, Metadata, Params
from gxdistill.runtime import hosts
from gxdistill.runtime.console import Progress
from gxdistill.storage import checkpoint
from gxdistill.tasks.distillation import method
from gxdistill.tasks.distillation.assessing import ceiling, for_package

_PATIENCE = 20  # Outer steps that may diverge in a row.

PRIVACY = (
    "No guarantee. Nothing was added to protect the patients, and no attack was tried: distilled "
    "images may reveal training images or who took part."
)


def distil(job: Job) -> Path:
    """Learns the distilled data, resuming where it was interrupted, and packages it.

    Returns:
      The package's file, which the first of several processes writes.
    """
    workdir.check_same(job)
    try:
        workdir.describe(job, job.source)
    except source.TooManyBadError as error:
        source.write_quarantine(job.workdir / "quarantine.csv", error.quarantine)
        raise
    learned = _outer_loop(job).distilled if job.config.distill.outer_steps else _start(job)
    path = job.workdir / "package.gxd"
    if not hosts.leads():
        return path
    package.save(path, packaged(job, method.finished(job, learned)))
    job.log(f"package: {path}, {package.size_bytes(path)} bytes")
    return path


def _outer_loop(job: Job) -> outer.DistillState:
    settings = job.config.distill
    per_call = settings.steps_per_call
    for name in ("outer_steps", "checkpoint_every", "evaluate_every"):
        if settings[name] % per_call:
            raise UserError(
                f"distill.{name} is {settings[name]}, not a multiple of "
                f"distill.steps_per_call, {per_call}. Change one of them."
            )
    identity = json.dumps(job.identity(), sort_keys=True).encode()
    hosts.check_same(hashlib.sha256(identity).digest(), "config or cohort")
    loop, state = method.build(job)
    return _iterate(job, loop, state)


def _iterate(job: Job, loop: outer.Distiller, state: outer.DistillState) -> outer.DistillState:
    settings = job.config.distill
    folder, history = job.workdir / "checkpoints", History(job.workdir / "history.jsonl")
    state = devices.copied(job, _resumed(job, folder, state))
    history.cut(int(state.step))
    measure = _monitor(job)
    advance = devices.stepper(job, loop, int(state.step))
    clock = Progress(job.log, "distilling", int(state.step))
    while (done := int(state.step)) < settings.outer_steps:
        state, losses = advance(state)
        done += settings.steps_per_call
        if np.isfinite(losses).any():
            history.add(step=done, loss=float(losses[np.isfinite(losses)].mean()))
        clock(done, settings.outer_steps, f", loss {losses[-1]:.4f}")
        if int(state.skipped_in_a_row) >= _PATIENCE:
            raise UserError(
                f"The last {int(state.skipped_in_a_row)} outer steps, up to step {done}, diverged: "
                f"no meta-gradient was finite. The checkpoint before stays. Lower "
                f"distill.start_lr (now {settings.start_lr}) or the rates of distill.optimizer, or "
                f"set distill.optimizer.ema_clip, and start in another --workdir."
            )
        if done % settings.evaluate_every == 0 or done == settings.outer_steps:
            accuracy = measure(method.finished(job, devices.fetch(state.distilled)))
            if accuracy is not None:
                history.add(step=done, accuracy=accuracy)
        if done % settings.checkpoint_every == 0 or done == settings.outer_steps:
            kept = devices.fetch(state)
            if hosts.leads():
                checkpoint.save(folder, done, kept, metadata={})
    if int(state.skipped) == settings.outer_steps:
        raise UserError(
            f"Each of the {settings.outer_steps} outer steps diverged. Lower distill.start_lr "
            f"(now {settings.start_lr})."
        )
    return devices.fetch(state)


def _resumed(job: Job, folder: Path, state: outer.DistillState) -> outer.DistillState:
    """Returns the state of the first process's newest checkpoint, or the given first state."""
    restored = checkpoint.restore(folder, state)
    if restored is None:
        state = dataclasses.replace(state, distilled=_taught(job, state.distilled))
        workdir.write_settings(job)
    else:
        step, state, _ = restored
        job.log(f"resuming at outer step {step}")
    key = jax.random.key_data(state.key)
    state = hosts.from_first(dataclasses.replace(state, key=key))
    return dataclasses.replace(state, key=jax.random.wrap_key_data(state.key))


def _start(job: Job) -> Distilled:
    """Makes what is learned where nothing is to be learned."""
    learned = _taught(job, method.begun(job))
    workdir.write_settings(job)
    return learned


def _taught(job: Job, learned: Distilled) -> Distilled:
    """Gives the start the soft labels of networks trained on all real patches, where it is asked.

    They are the same networks that an evaluation trains as the ceiling.
    """
    settings = job.config.distill
    if settings.started_labels == "classes":
        return learned
    job.log("training networks on all real patches, for their labels")
    made = baselines.taught(method.finished(job, learned), job.network, ceiling(job))
    return dataclasses.replace(learned, labels=init.as_learned(made.labels, settings.label_rule))


def _monitor(job: Job) -> Callable[[Distilled], float | None]:
    """Builds the periodic measure: accuracy on one balanced draw of test patches.

    It is looked at, and nothing is chosen by it. None where a network diverged.
    """
    settings = job.config.distill

    @cache
    def pool() -> Batch:
        return job.sample("test", settings.evaluate_patches, job.key(Use.POOL))

    @jax.jit
    def accuracy(networks: Params, pool: Batch) -> jax.Array:
        predicted = jax.lax.map(lambda p: job.network.apply(p, pool.images).argmax(-1), networks)
        return jnp.mean(predicted == pool.labels)

    def measure(distilled: Distilled) -> float | None:
        try:
            networks = replayed(job, distilled, settings.evaluate_networks, job.key(Use.FRESH))
        except UserError as error:  # too early to judge: later steps may mend it
            job.log(str(error))
            return None
        return float(accuracy(networks, pool()))

    return measure


def replayed(job: Job, distilled: Distilled, count: int, key: jax.Array) -> Params:
    """Trains networks as the package means it: the known one, or `count` fresh ones."""
    keys = job.key(Use.KNOWN)[None] if job.known else jax.random.split(key, count)
    return replay.replay_many(job.network, keys, distilled, **_replay_settings(job))


def _replay_settings(job: Job) -> dict[str, Any]:
    optimiser = inner.create(**method.optimiser(job))
    return {"rule": job.config.distill.label_rule, "inner": optimiser}


def _counts(summary: Metadata) -> Metadata:
    """What of a cohort's summary leaves the hospital: numbers, and no names of files or sites."""
    counts = {name: summary[name] for name in ("images", "patients", "splits")}
    quarantined = summary["quarantine"]["count"]
    return {**counts, "sites": len(summary["sites"]), "quarantined": quarantined}


def _reading(job: Job) -> Metadata | None:
    """What a receiver must know to read images as these were; None where no files were read."""
    known = job.source.reading
    if not known:
        return None
    settings = {name: known[name] for name in ("window", "spacing", "fit", "text")}
    return settings | {"bits": sorted(map(int, known["bits"]))}


def about(job: Job) -> dict[str, Any]:
    """The fields of a manifest that tell of the cohort and the network, whatever was learned."""
    config = job.config
    return {
        "name": config.name,
        "purpose": config.about.purpose,
        "licence": config.about.licence,
        "cohort": _counts(source.summary(job.source)),
        "network": {"name": config.network.name, "options": dict(config.network.options)},
        "patch": job.geometry,
        "reading": _reading(job),
        "normalisation": {k: list(v) for k, v in job.normalise._asdict().items()},
        "class_names": list(job.source.cohort.class_names),
    }


def packaged(
    job: Job,
    distilled: Distilled,
    *,
    kind: str = "float32",
    grid: package.Grid | None = None,
    seeded: bool = False,
) -> package.Package:
    """Makes the package of a job: its networks are trained and measured for that.

    Args:
      job: whose method and cohort.
      distilled: what it learned, of the precision `kind`.
      kind: one of `package.PRECISIONS`.
      grid: of the images, where they are codes.
      seeded: leaves known initial weights to their seed.
    """
    config = job.config
    networks = replayed(job, distilled, config.evaluate.networks, job.key(Use.FRESH))
    decided, results = for_package(job, networks)
    settings = config.distill
    manifest = {
        **about(job),
        "init": {
            "rule": "seeded" if seeded else settings.init,
            "seed": config.seed if job.known else None,
        },
        "distillation": {
            "steps": settings.steps,
            "epochs": len(distilled.log_lr) // settings.steps,
            "images_per_step": settings.images_per_step,
            # Clipped labels are read as they are.
            "label_rule": "raw" if settings.label_rule == "clipped" else settings.label_rule,
            "loss": "cross_entropy",
            "inner": method.optimiser(job),
            "started_from": settings.started_from,
            "outer_steps": settings.outer_steps,
            "settings": job.identity()["distill"],
        },
        "precision": kind,
        "decision": decided,
        "proof": _proof(job, distilled) if job.known else None,
        "results": results,
        "privacy": PRIVACY,
    }
    kept = job.known and not seeded
    start = jax.tree.map(np.asarray, job.network.init(job.key(Use.KNOWN))) if kept else None
    return package.Package(distilled, manifest, start, grid=grid)


def _proof(job: Job, distilled: Distilled) -> Metadata:
    def trained(start: Params) -> Params:
        return replay.replay(job.network, start, distilled, **_replay_settings(job))

    return proof.prove(job.network, trained, job.network.init(job.key(Use.KNOWN)), job.shape)
