"""The sending side: check the cohort, learn the distilled data, package it."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gxdistill import checkpoint, package, storage, train
from gxdistill.data import batches, source
from gxdistill.distill import init, meta_gradient, outer
from gxdistill.errors import UserError
from gxdistill.pytrees import Distilled, Metadata, Params
from gxdistill.run.assessing import for_package
from gxdistill.run.job import Job, Use
from gxdistill.run.progress import History, Progress

PRIVACY = (
    "No guarantee. Nothing was added to protect the patients, and no attack was tried: distilled "
    "images may reveal training images or who took part."
)


def prepare(job: Job) -> Metadata:
    """Checks the cohort and writes what is known of it: `cohort.json`, `quarantine.csv`.

    Returns:
      The summary.
    """
    try:
        summary = dict(source.summary(job.source))
    except source.TooManyBadError as error:
        source.write_quarantine(job.workdir / "quarantine.csv", error.quarantine)
        raise
    tables = {"train": job.table(job.training), "test": job.table(job.test)}
    summary["patch"] = dict(job.config.patch)
    summary["patches"] = {
        split: dict(zip(job.source.cohort.class_names, counts.tolist(), strict=True))
        for split, counts in (
            (split, np.bincount(table.label, minlength=job.classes))
            for split, table in tables.items()
        )
    }
    source.write_quarantine(job.workdir / "quarantine.csv", job.source.quarantine)
    storage.write_json(job.workdir / "cohort.json", summary)
    job.say(
        f"cohort: {summary['images']} images of {summary['patients']} patients, "
        f"{len(job.source.quarantine)} quarantined; patches {summary['patches']}"
    )
    return summary


def distil(job: Job) -> Path:
    """Learns the distilled data, resuming where it was interrupted, and packages it.

    Returns:
      The folder of the package.
    """
    prepare(job)
    state = _outer_loop(job)
    folder = job.workdir / "package"
    package.save(folder, _packaged(job, state))
    job.say(f"package: {folder}, {package.size_bytes(folder)} bytes")
    return folder


def _start(job: Job) -> Distilled:
    settings = job.config.distill
    common = {"epochs": settings.epochs, "lr": settings.start_lr, "rule": settings.label_rule}
    steps, per_step = settings.steps, settings.images_per_step
    if settings.started_from == "noise":
        return init.noise(
            job.key(Use.START),
            steps=steps,
            images_per_step=per_step,
            shape=job.shape,
            num_classes=job.classes,
            **common,
        )
    # A balanced batch takes the classes in turn, as `label_classes` does.
    feed = batches.resident(job.training, job.table(job.training))
    real = job.draw(steps * per_step)(feed, job.key(Use.START))
    images = real.images.reshape(steps, per_step, *job.shape)
    return init.start(images, real.labels.reshape(steps, per_step), job.classes, **common)


def _outer_loop(job: Job) -> outer.DistillState:
    settings = job.config.distill
    per_call = settings.steps_per_call
    for name in ("outer_steps", "checkpoint_every", "evaluate_every"):
        if settings[name] % per_call:
            raise UserError(
                f"distill.{name} is {settings[name]}, not a multiple of "
                f"distill.steps_per_call, {per_call}. Change one of them."
            )
    try:
        step = meta_gradient.full_unroll(
            job.network,
            rule=settings.label_rule,
            known_key=job.key(Use.KNOWN) if job.known else None,
            networks=settings.networks,
            remat=settings.remat,
        )
        optimizer = outer.optimizer(settings.outer_steps, **settings.optimizer)
        loop = outer.distiller(step, optimizer)
        state = loop.init(_start(job), job.key(Use.LOOP))
    except ValueError as error:
        raise UserError(f"distill: {error}") from error
    return _iterate(job, loop, state)


def _iterate(job: Job, loop: outer.Distiller, state: outer.DistillState) -> outer.DistillState:
    settings = job.config.distill
    folder, history = job.workdir / "checkpoints", History(job.workdir / "history.jsonl")
    restored = checkpoint.restore(folder, state)
    if restored is not None:
        step, state, metadata = restored
        _check_same(metadata["identity"], job.identity(), job.workdir)
        job.say(f"resuming at outer step {step}")
    history.cut(int(state.step))
    feed = batches.resident(job.training, job.table(job.training))
    call = jax.jit(outer.several_steps(loop, job.draw(settings.batch), settings.steps_per_call))
    clock = Progress(job.say, "distilling", int(state.step))
    while (done := int(state.step)) < settings.outer_steps:
        state, losses = call(state, feed)
        done += settings.steps_per_call
        history.add(step=done, loss=float(jnp.mean(losses)))
        clock(done, settings.outer_steps, f", loss {float(losses[-1]):.4f}")
        if done % settings.evaluate_every == 0 or done == settings.outer_steps:
            history.add(step=done, accuracy=_periodic(job, state.distilled))
        if done % settings.checkpoint_every == 0 or done == settings.outer_steps:
            checkpoint.save(folder, done, state, metadata={"identity": job.identity()})
    if int(state.skipped) == settings.outer_steps:
        raise UserError(
            f"Each of the {settings.outer_steps} outer steps diverged. Lower distill.start_lr "
            f"(now {settings.start_lr})."
        )
    return state


def _check_same(old: Metadata, new: Metadata, workdir: Path) -> None:
    def flat(tree: Any, at: str = "") -> dict[str, Any]:
        if not isinstance(tree, dict):
            return {at: tree}
        parts = [flat(v, f"{at}.{k}" if at else k) for k, v in tree.items()]
        return {k: v for part in parts for k, v in part.items()}

    was, now = flat(dict(old)), flat(dict(new))
    changed = sorted(k for k in was.keys() | now.keys() if was.get(k) != now.get(k))
    if changed:
        what = ", ".join(f"{k} (was {was.get(k)!r}, is {now.get(k)!r})" for k in changed[:5])
        raise UserError(
            f"{workdir} holds a run with other settings: {what}. Choose another --workdir, or "
            f"the settings of before."
        )


def _periodic(job: Job, distilled: Distilled) -> float:
    """Measures the patch accuracy on a fixed balanced draw of test patches; nothing is chosen."""
    feed = batches.resident(job.test, job.table(job.test))
    pool = jax.jit(job.draw(job.config.distill.evaluate_patches))(feed, job.key(Use.POOL))
    count = job.config.distill.evaluate_networks
    networks = replayed(job, distilled, count, job.key(Use.FRESH))
    predicted = jax.lax.map(lambda p: job.network.apply(p, pool.images).argmax(-1), networks)
    return float(jnp.mean(predicted == pool.labels))


def replayed(job: Job, distilled: Distilled, count: int, key: jax.Array) -> Params:
    """Trains networks as the package means it: the known one, or `count` fresh ones."""
    keys = job.key(Use.KNOWN)[None] if job.known else jax.random.split(key, count)
    rule = job.config.distill.label_rule
    return train.replay_many(job.network, keys, distilled, rule=rule)


def _packaged(job: Job, state: outer.DistillState) -> package.Package:
    config, distilled = job.config, state.distilled
    start = jax.tree.map(np.asarray, job.network.init(job.key(Use.KNOWN))) if job.known else None
    networks = replayed(job, distilled, config.evaluate.networks, job.key(Use.FRESH))
    decided, results = for_package(job, networks)
    settings = config.distill
    manifest = {
        "name": config.name,
        "network": {"name": config.network.name, "options": dict(config.network.options)},
        "init": {"rule": settings.init, "seed": config.seed if job.known else None},
        "distillation": {
            "steps": settings.steps,
            "epochs": settings.epochs,
            "images_per_step": settings.images_per_step,
            "label_rule": settings.label_rule,
            "loss": "cross_entropy",
            "started_from": settings.started_from,
            "outer_steps": settings.outer_steps,
            "settings": job.identity()["distill"],
        },
        "patch": job.geometry,
        "normalisation": {k: list(v) for k, v in job.normalise._asdict().items()},
        "class_names": list(job.source.cohort.class_names),
        "decision": decided,
        "results": results,
        "privacy": PRIVACY,
    }
    return package.Package(distilled, manifest, start)
