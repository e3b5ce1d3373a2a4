"""Training: from a job's images and masks to the package of a segmenter."""

from pathlib import Path

import jax

from gxdistill import storage
from gxdistill.data import source
from gxdistill.errors import UserError
from gxdistill.jobs import devices, summary
from gxdistill.jobs.devices import Stepper
from gxdistill.jobs.job import Job
from gxdistill.jobs.loop import Run, Schedule
from gxdistill.jobs.segmenter_manifest import PACKAGE, manifest_of
from gxdistill.package.seeds import Use
from gxdistill.package.segmenter import Segmenter, SegmenterManifest, save_segmenter
from gxdistill.pytrees import Batch, Metadata, Network, Params
from gxdistill.runtime import hosts
from gxdistill.segmentation.losses import deep_loss
from gxdistill.tasks.segmentation.labelled import Labelled
from gxdistill.training.steps import Loop, LoopState
from gxdistill.training.supervised import RealLoss, supervised

_PRIVACY = (
    "Trained on images of patients without a bound on what it tells of any of them: treat the "
    "weights as you treat the images."
)


def make_loss(network: Network, over: str) -> RealLoss:
    """Builds the loss of a segmentation, `(params, batch) -> scalar`; see `losses.deep_loss`."""
    assert network.apply_levels
    levels = network.apply_levels

    def loss(params: Params, batch: Batch) -> jax.Array:
        return deep_loss(levels(params, batch.images), batch.targets, over=over)

    return loss


def train(job: Job) -> Path:
    """Trains a segmenter, or goes on with it, and writes its package.

    Args:
      job: with the section `segment`.

    Returns:
      The path of the package, `segmenter.gxs`.

    Raises:
      UserError: the cohort or a setting cannot be used, or the training diverged.
    """
    with job.workdir.locked("gxdistill segment train"), summary.keeping_quarantine(job):
        job.workdir.check_same(identity(job))
        data, path = Labelled(job), job.workdir / PACKAGE
        params = _learned(job, data)
        if hosts.leads():
            save_segmenter(path, Segmenter(_manifest(job, data), params))
            job.log(f"segmenter: {path}, {path.stat().st_size} bytes")
        return path


def identity(job: Job) -> Metadata:
    """Tells all that a segmenter depends on."""
    return job.identity("segment")


def _learned(job: Job, data: Labelled) -> Params:
    settings, network = job.config.segment, data.network
    loop = supervised(
        make_loss(network, settings.dice_over),
        count=settings.steps,
        lr=settings.lr,
        decay=settings.decay,
    )
    run = Run(
        what="segmenting",
        stepper=_stepper(job, data, loop),
        schedule=Schedule(settings.steps, settings.checkpoint_every),
        checkpoints=job.workdir.checkpoints,
        log=job.log,
        history=job.history,
        begin=lambda state: _claimed(job, state),
        advice=f"Lower segment.lr (now {settings.lr}), and start in another --workdir.",
    )
    params = network.init(job.key(Use.FRESH))
    return run(loop.init(params, job.key(Use.LOOP))).learned


def _claimed(job: Job, state: LoopState) -> LoopState:
    job.workdir.write_settings(identity(job))
    storage.write_json(job.workdir / "cohort.json", source.summary(job.cohorts.source))
    return state


def _stepper(job: Job, data: Labelled, loop: Loop) -> Stepper:
    settings, shared = job.config.segment, devices.all_devices()
    if shared and settings.batch % len(shared):
        raise UserError(
            f"segment.batch is {settings.batch}, which {len(shared)} devices cannot share evenly. "
            f"Choose a multiple of {len(shared)}."
        )
    mesh = devices.make_mesh(shared, networks=1, batch=settings.batch)
    return Stepper(
        loop, data.batches(settings.batch), settings.steps_per_call, mesh=mesh, rows=settings.batch
    )


def _manifest(job: Job, data: Labelled) -> SegmenterManifest:
    segment = job.config.segment
    return manifest_of(
        job,
        segment,
        privacy=_PRIVACY,
        normalisation=data.normalisation,
        class_names=data.class_names,
        overlap=segment.overlap,
        flips=segment.flips,
    )
