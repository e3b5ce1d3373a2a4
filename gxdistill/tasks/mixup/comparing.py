"""What mixing is measured beside: the network on raw images, and one that attacks mixtures."""

import json

import ml_collections
import optax

from gxdistill.jobs.devices import Stepper
from gxdistill.jobs.loop import Run, Schedule
from gxdistill.jobs.workdir import Workdir
from gxdistill.models.cached import cached_network
from gxdistill.package import seeds
from gxdistill.package.mixup_file import network_of
from gxdistill.package.seeds import Use
from gxdistill.privacy.attacks import unmixing
from gxdistill.pytrees import Network, Params
from gxdistill.runtime.console import Log
from gxdistill.segmentation.losses import segmentation_loss
from gxdistill.tasks.mixup import training
from gxdistill.tasks.mixup.cohort import MixupCohort
from gxdistill.training import steps
from gxdistill.training.supervised import supervised


def _identity(config: ml_collections.ConfigDict, cohort: MixupCohort) -> str:
    table = {**training.identity(config, cohort), "attack_steps": config.mixup.attack_steps}
    return json.dumps(table, sort_keys=True)


def separator_of(config: ml_collections.ConfigDict, cohort: MixupCohort) -> Network:
    """Returns the attacker's network: as the server's, with a grey level in place of classes."""
    return cached_network("unet", config.mixup.segmenter.to_dict(), cohort.shape, 1)


def train_separator(
    config: ml_collections.ConfigDict, cohort: MixupCohort, workdir: Workdir, log: Log
) -> Params:
    """Trains a network to give back what was mixed, on the training patients, see `unmixing`.

    Returns:
      Its weights.

    Raises:
      UserError: it diverged.
    """
    mixup, network = config.mixup, separator_of(config, cohort)
    gradient = unmixing.separation_gradient(network.apply, training.law_of(config))
    rate = optax.cosine_decay_schedule(mixup.lr, mixup.attack_steps)
    loop = steps.loop(gradient, optax.adamw(rate, weight_decay=mixup.decay))
    run = Run(
        what="separating",
        stepper=Stepper(loop, cohort.pairs(mixup.batch), mixup.steps_per_call),
        schedule=Schedule(mixup.attack_steps, mixup.checkpoint_every),
        checkpoints=workdir / "attack_checkpoints",
        log=log,
        identity=_identity(config, cohort),
    )
    params = network.init(seeds.key(config.seed, Use.KNOWN))
    return run(loop.init(params, seeds.key(config.seed, Use.COMPRESS))).learned


def train_raw(
    config: ml_collections.ConfigDict, cohort: MixupCohort, workdir: Workdir, log: Log
) -> Params:
    """Trains the server's network on raw images of all training patients: the upper bound.

    Returns:
      Its weights.

    Raises:
      UserError: it diverged.
    """
    mixup, network = config.mixup, network_of(training.manifests(config, cohort)[0])
    loop = supervised(
        lambda params, batch: segmentation_loss(network.apply(params, batch.images), batch.targets),
        count=mixup.steps,
        lr=mixup.lr,
        decay=mixup.decay,
    )
    run = Run(
        what="raw images",
        stepper=Stepper(loop, cohort.singles(mixup.batch), mixup.steps_per_call),
        schedule=Schedule(mixup.steps, mixup.checkpoint_every),
        checkpoints=workdir / "raw_checkpoints",
        log=log,
        identity=_identity(config, cohort),
    )
    params = network.init(seeds.key(config.seed, Use.CEILING))
    return run(loop.init(params, seeds.key(config.seed, Use.BASELINE))).learned
