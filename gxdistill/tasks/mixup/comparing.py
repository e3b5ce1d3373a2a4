"""What mixing is measured beside: networks on other images, and one that attacks mixtures."""

import dataclasses
import json
from collections.abc import Callable

import jax
import ml_collections
import optax

from gxdistill.jobs.devices import Stepper
from gxdistill.jobs.loop import Run, Schedule
from gxdistill.jobs.problem import BatchSource
from gxdistill.jobs.workdir import Workdir
from gxdistill.models.cached import cached_network
from gxdistill.package import seeds
from gxdistill.package.mixup_file import network_of
from gxdistill.package.seeds import Use
from gxdistill.privacy.attacks import unmixing
from gxdistill.pytrees import Batch, Metadata, Network, Params
from gxdistill.runtime.console import Log
from gxdistill.segmentation.losses import segmentation_loss
from gxdistill.tasks.mixup import training
from gxdistill.tasks.mixup.cohort import MixupCohort
from gxdistill.training import steps
from gxdistill.training.steps import Gradient

# `(key, images [N, H, W], labels [N, H, W])` to both as they are sent.
Change = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


@dataclasses.dataclass(frozen=True)
class Trainer:
    """Trains networks on one cohort, each of them resumable.

    Attributes:
      config: of the run.
      cohort: of the run.
      workdir: of the run, with a folder of checkpoints for each network.
      log: told the progress.
    """

    config: ml_collections.ConfigDict
    cohort: MixupCohort
    workdir: Workdir
    log: Log

    @property
    def separator(self) -> Network:
        """The attacker's network: as the server's, with a grey level in place of classes."""
        options = self.config.mixup.segmenter.to_dict()
        return cached_network("unet", options, self.cohort.shape, 1)

    @property
    def segmenter(self) -> Network:
        """The server's network."""
        return network_of(training.manifests(self.config, self.cohort)[0])

    def separation(self) -> Params:
        """Trains a network to give back what was mixed, on training patients, see `unmixing`.

        It sees mixtures of private patients with each other, and no reference that clients use.

        Returns:
          Its weights.

        Raises:
          UserError: it diverged.
        """
        return self._train(
            "separating",
            self.separator,
            unmixing.separation_gradient(self.separator.apply, training.law_of(self.config)),
            self.cohort.pairs(self.config.mixup.batch, self.cohort.private),
            count=self.config.mixup.attack_steps,
            uses=(Use.KNOWN, Use.COMPRESS),
        )

    def segmentation(self, what: str, change: Change, size: float = 0.0) -> Params:
        """Trains the server's network on images of all training patients, as they would be sent.

        Args:
          what: is sent, in a word or two.
          change: what becomes of images before they are sent, drawn anew at each step.
          size: of the change.

        Returns:
          Its weights.

        Raises:
          UserError: it diverged.
        """
        network = self.segmenter

        def loss(params: Params, key: jax.Array, batch: Batch) -> jax.Array:
            images, labels = change(key, batch.images[..., 0], batch.targets)
            return segmentation_loss(network.apply(params, images[..., None]), labels)

        return self._train(
            what,
            network,
            jax.value_and_grad(loss),
            self.cohort.singles(self.config.mixup.batch),
            count=self.config.mixup.steps,
            uses=(Use.CEILING, Use.BASELINE),
            size=size,
        )

    def _train(
        self,
        what: str,
        network: Network,
        gradient: Gradient,
        source: BatchSource,
        *,
        count: int,
        uses: tuple[Use, Use],
        **depends_on: float,
    ) -> Params:
        """Trains from weights of the first of `uses` with batches of the second."""
        mixup = self.config.mixup
        rate = optax.cosine_decay_schedule(mixup.lr, count)
        loop = steps.loop(gradient, optax.adamw(rate, weight_decay=mixup.decay))
        identity: Metadata = training.identity(self.config, self.cohort)
        run = Run(
            what=what,
            stepper=Stepper(loop, source, mixup.steps_per_call),
            schedule=Schedule(count, mixup.checkpoint_every),
            checkpoints=self.workdir / f"{what.replace(' ', '_')}_checkpoints",
            log=self.log,
            identity=json.dumps({**identity, "count": count, **depends_on}, sort_keys=True),
        )
        first, batches = (seeds.key(self.config.seed, use) for use in uses)
        return run(loop.init(network.init(first), batches)).learned
