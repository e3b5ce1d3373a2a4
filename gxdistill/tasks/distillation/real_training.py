"""Networks trained on all real patches: the ceiling, teachers of labels, essential weights."""

import json
import math
from pathlib import Path
from typing import Any

import jax

from gxdistill.distill import replay
from gxdistill.jobs.devices import Stepper
from gxdistill.jobs.job import Job
from gxdistill.jobs.loop import Run, Schedule
from gxdistill.jobs.problem import BatchSource
from gxdistill.package.seeds import Use
from gxdistill.pytrees import Metadata, Params
from gxdistill.tasks.distillation import method
from gxdistill.training.steps import Loop
from gxdistill.training.supervised import classification_loss, supervised

_PER_CALL = 10  # Steps of one dispatch, at most.
_CHECKPOINT_EVERY = 500  # Steps; some minutes of a CPU.


def make_stepper(loop: Loop, source: BatchSource, steps: int) -> Stepper:
    """Builds what takes the steps of a training on real patches, `steps` of them in all."""
    return Stepper(loop, source, math.gcd(_PER_CALL, steps, _CHECKPOINT_EVERY))


def train(
    job: Job,
    state: Any,
    stepper: Stepper,
    *,
    steps: int,
    what: str,
    folder: Path,
    depends_on: Metadata,
    advice: str,
) -> Params:
    """Trains on real patches, or goes on with it.

    Args:
      job: whose cohort is trained on.
      state: the first state.
      stepper: from `make_stepper`.
      steps: number of steps in all.
      what: is done, in words.
      folder: of the checkpoints, which stay: what is trained is trained once.
      depends_on: what the result depends on beside the settings that all tasks share.
      advice: what to do where it diverges.

    Returns:
      What was learned.
    """
    run = Run(
        what=what,
        stepper=stepper,
        schedule=Schedule(steps, _CHECKPOINT_EVERY),
        checkpoints=folder,
        log=job.log,
        identity=json.dumps({**job.identity(), **depends_on}, sort_keys=True),
        advice=advice,
    )
    return run(state).learned


def ceiling(job: Job) -> Params:
    """Trains the networks that distilled images are measured against.

    Returns:
      Their weights; each leaf has a leading axis of them.
    """
    settings, network = job.config.evaluate.ceiling, job.problem.network
    loop = supervised(classification_loss(network), count=settings.steps, lr=settings.lr)
    stepper = make_stepper(loop, job.problem.batches(settings.batch), settings.steps)
    networks = []
    for i, key in enumerate(jax.random.split(job.key(Use.CEILING), settings.networks)):
        weights = train(
            job,
            loop.init(initial_weights(job, key), key),
            stepper,
            steps=settings.steps,
            what=f"training network {i + 1} of {settings.networks} on all real patches",
            folder=job.workdir / f"ceiling/network{i}",
            depends_on={"init": job.config.distill.init, "ceiling": dict(settings)},
            advice=f"Lower evaluate.ceiling.lr (now {settings.lr}).",
        )
        networks.append(weights)
    return replay.stacked(networks)


def initial_weights(job: Job, key: jax.Array) -> Params:
    """Returns the known initial weights, or fresh ones of a key."""
    known = method.starts_known(job.config.distill)
    return job.problem.network.init(job.key(Use.KNOWN) if known else key)
