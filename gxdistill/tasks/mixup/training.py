"""Training both networks together, and the files of both sides."""

import dataclasses
import json
from pathlib import Path

import jax
import ml_collections
import optax

from gxdistill.jobs.devices import Stepper
from gxdistill.jobs.loop import Run, Schedule
from gxdistill.jobs.workdir import Workdir
from gxdistill.mixup.losses import Networks, Pair, Weights, mixup_loss
from gxdistill.mixup.mixing import Law, draw_shares
from gxdistill.mixup.unmixing import Reference
from gxdistill.package import mixup_file, seeds
from gxdistill.package.mixup_file import CLIENT, SERVER, MixupFile, MixupManifest, network_of
from gxdistill.package.seeds import Use
from gxdistill.pytrees import Batch, Metadata, Params
from gxdistill.runtime.console import Log
from gxdistill.segmentation.losses import segmentation_loss
from gxdistill.tasks.mixup import settings
from gxdistill.tasks.mixup.cohort import MixupCohort
from gxdistill.training import steps
from gxdistill.training.steps import Gradient, LoopState

SERVER_FILE, CLIENT_FILE = "server.gxm", "client.gxm"
_NETWORK = "unet"
_PRIVACY = (
    "Mixing is no encryption and promises nothing: how much of an image its mixture shows is "
    "measured by attacks, see docs/mixup.md. The weights were learned without a bound on what they "
    "tell of any training patient."
)


def law_of(config: ml_collections.ConfigDict) -> Law:
    """Returns the law of lambda of a config."""
    return Law(config.mixup.low, config.mixup.high)


def identity(config: ml_collections.ConfigDict, cohort: MixupCohort) -> Metadata:
    """Tells all that the networks depend on, as JSON can hold it."""
    chosen = json.loads(config.mixup.to_json_best_effort())
    for name in ("path", "references", "beside", "attack_steps", "checkpoint_every"):
        del chosen[name]
    return {"seed": config.seed, "mixup": chosen, "cohort": cohort.volumes.digest}


def make_gradient(networks: Networks, law: Law, weights: Weights) -> Gradient:
    """Builds the gradient of the loss of mixtures, with shares drawn anew at each step.

    A batch holds N targets, then their N references.
    """

    def loss(params: Params, key: jax.Array, batch: Batch) -> jax.Array:
        count = len(batch.images) // 2
        (images, others), (labels, known) = (
            (whole[:count], whole[count:]) for whole in (batch.images, batch.targets)
        )
        pair = Pair(images, labels, Reference(others, known, draw_shares(key, count, law)))
        return mixup_loss(networks, params, pair, segmentation_loss, weights)

    return jax.value_and_grad(loss)


def manifests(
    config: ml_collections.ConfigDict, cohort: MixupCohort
) -> tuple[MixupManifest, MixupManifest]:
    """Makes the manifests of server and client; the client's lacks the server's digest."""
    common = {
        "name": config.name,
        "privacy": _PRIVACY,
        "network": _NETWORK,
        "shape": cohort.shape,
        "class_names": tuple(config.mixup.classes),
    }
    server = MixupManifest(kind=SERVER, options=config.mixup.segmenter.to_dict(), **common)
    low, high = law_of(config)
    law = (float(low), float(high))
    client = MixupManifest(kind=CLIENT, options=config.mixup.unmixer.to_dict(), law=law, **common)
    return server, client


def train(config: ml_collections.ConfigDict, workdir: Workdir, log: Log) -> tuple[Path, Path]:
    """Trains both networks, or goes on with them, and writes the files of both sides.

    Returns:
      The paths of `server.gxm`, for whoever serves, and of `client.gxm`, for the hospitals.

    Raises:
      UserError: the volumes or a setting cannot be used, or the training diverged.
    """
    settings.check(config)
    cohort, mixup = MixupCohort(config), config.mixup
    server, client = manifests(config, cohort)
    segmenter, unmixer = network_of(server), network_of(client)
    workdir.check_same(identity(config, cohort))
    weights = Weights(mixup.mixture_weight, mixup.target_weight, mixup.reference_weight)
    gradient = make_gradient(Networks(segmenter.apply, unmixer.apply), law_of(config), weights)
    rate = optax.cosine_decay_schedule(mixup.lr, mixup.steps)
    loop = steps.loop(gradient, optax.adamw(rate, weight_decay=mixup.decay))

    def begin(state: LoopState) -> LoopState:
        workdir.write_settings(identity(config, cohort))
        return state

    run = Run(
        what="mixing",
        stepper=Stepper(loop, cohort.pairs(mixup.batch, cohort.pool), mixup.steps_per_call),
        schedule=Schedule(mixup.steps, mixup.checkpoint_every),
        checkpoints=workdir.checkpoints,
        log=log,
        history=workdir.history,
        begin=begin,
        advice=f"Lower mixup.lr (now {mixup.lr}), and start in another --workdir.",
    )
    of_segmenter, of_unmixer = jax.random.split(seeds.key(config.seed, Use.FRESH))
    first = {"segmenter": segmenter.init(of_segmenter), "unmixer": unmixer.init(of_unmixer)}
    learned = run(loop.init(first, seeds.key(config.seed, Use.LOOP))).learned
    return _write(workdir, (server, client), learned, cohort)


def _write(
    workdir: Workdir,
    manifests: tuple[MixupManifest, MixupManifest],
    learned: Params,
    cohort: MixupCohort,
) -> tuple[Path, Path]:
    server, client = manifests
    paths = workdir / SERVER_FILE, workdir / CLIENT_FILE
    digest = mixup_file.save(paths[0], MixupFile(server, learned["segmenter"]))
    client = dataclasses.replace(client, server=digest)
    pool = cohort.pool
    mixup_file.save(paths[1], MixupFile(client, learned["unmixer"], pool.images, pool.labels))
    return paths
