"""The data side of a segmentation: cohorts with label maps, and batches of their crops."""

import dataclasses
from functools import cached_property, partial
from itertools import repeat
from typing import Any

import jax

from gxdistill.data.batches import labelled, resident, sampling, streaming
from gxdistill.data.batches.resident import Normalisation
from gxdistill.errors import UserError
from gxdistill.jobs import checks
from gxdistill.jobs.cohorts import check_patch_fits
from gxdistill.jobs.job import Job
from gxdistill.jobs.problem import BatchSource
from gxdistill.models.cached import cached_network
from gxdistill.pytrees import Batch, Cohort, Network
from gxdistill.segmentation.augmentation import augment


@dataclasses.dataclass(frozen=True)
class Labelled:
    """What of a job's data a segmentation learns from.

    Attributes:
      job: whose config and cohort.
    """

    job: Job

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the K classes of pixels."""
        return tuple(self.job.config.data.mask_classes)

    @cached_property
    def train(self) -> Cohort:
        """The training images.

        Raises:
          UserError: they have no masks, or masks of more classes.
        """
        return self._checked(self.job.cohorts.train)

    @cached_property
    def test(self) -> Cohort:
        """The test images.

        Raises:
          UserError: as `train`.
        """
        return self._checked(self.job.cohorts.test)

    def _checked(self, cohort: Cohort) -> Cohort:
        if cohort.masks is None:
            raise UserError(
                "The images have no masks to learn from. Name their column, as "
                "--config.data.columns.mask=masks/{id}.png."
            )
        most = max(int(mask.max()) for mask in cohort.masks)
        if most >= len(self.class_names):
            raise UserError(
                f"A mask holds class {most}, and data.mask_classes names {len(self.class_names)}: "
                f"{', '.join(self.class_names)}. Name all, the background first."
            )
        return cohort

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of a crop, `[H, W, C]`."""
        return (*(self.job.config.patch.size,) * 2, self.train.images.shape[-1])

    @cached_property
    def network(self) -> Network:
        """What is trained.

        Raises:
          UserError: the network does not fit the crops, or a setting does not.
        """
        config = self.job.config
        check_patch_fits(config, *self.train.images.shape[1:3])
        checks.check_problem(config, self.shape, len(self.class_names))
        network = config.network
        return cached_network(network.name, network.options, self.shape, len(self.class_names))

    @cached_property
    def normalisation(self) -> Normalisation:
        """How pixels become input: measured on the training images."""
        return resident.normalisation(self.train)

    def batches(self, count: int) -> BatchSource:
        """Makes the source of batches of `count` augmented crops."""
        config = self.job.config
        cohort = labelled.with_label_maps(self.train)
        size = config.patch.size
        table = labelled.crop_table(cohort, size, config.patch.stride)
        chosen = config.sampling
        try:
            sampler = sampling.sampler(
                cohort,
                table,
                classes=chosen.classes,
                sites=dict(chosen.sites),
                patients=chosen.patients,
            )
        except ValueError as error:
            raise UserError(f"sampling: {error}") from error
        to_batch = partial(
            labelled.to_batch,
            normalise=self.normalisation,
            augment=partial(augment, tuple(config.segment.augment)),
        )
        if self.job.cohorts.streams:
            cache_mb = config.data.cache_mb
            stream = streaming.Streaming(cohort, sampler, size=size, batch=count, cache_mb=cache_mb)
            return BatchSource(to_batch, stream.batches, reusable=False)

        def draw(feed: Any, key: jax.Array) -> Batch:
            drawn, changed = jax.random.split(key)
            return to_batch(resident.draw_pixels(feed, drawn, size=size, batch=count), changed)

        images = resident.place(cohort, sampler)
        return BatchSource(draw, lambda *_: repeat(images), reusable=True)
