"""The data side of a job: its cohort, splits, patches and batches, each made at first use."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from itertools import repeat

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from gxdistill import patching
from gxdistill.data import source
from gxdistill.data.batches import resident, sampling, streaming
from gxdistill.data.splits import EXTERNAL
from gxdistill.errors import UserError
from gxdistill.evaluation import patches
from gxdistill.jobs import devices, kinds
from gxdistill.jobs.problem import BatchSource
from gxdistill.package.fields import PatchGeometry
from gxdistill.privacy.sampling import PatientSampler, draw_patients, patient_feed
from gxdistill.pytrees import Batch, Cohort, PatchTable
from gxdistill.runtime.console import Log

FIXED_LEVELS = 0.5, 0.25  # Mean and deviation that tell nothing of a cohort.


@dataclasses.dataclass(frozen=True)
class Cohorts:
    """The data that a config names.

    Attributes:
      config: of the job.
      log: told the progress of reading.
    """

    config: ml_collections.ConfigDict
    log: Log

    @cached_property
    def source(self) -> source.Source:
        """The cohort with its quarantine."""
        return kinds.load(self.config, self.log)

    @cached_property
    def train(self) -> Cohort:
        """The training patients."""
        return self._split("train")

    @cached_property
    def test(self) -> Cohort:
        """The test patients."""
        return self._split("test")

    @cached_property
    def external(self) -> Cohort | None:
        """The patients of the site that is kept out; None where there is no such site."""
        return self._split(EXTERNAL) if self.config.data.external else None

    def _split(self, name: str) -> Cohort:
        cohort = self.source.cohort
        if name not in cohort.splits:
            raise UserError(
                f"No image is for the {name} split. Change data.test_share (now "
                f"{self.config.data.test_share}), or the manifest's splits."
            )
        return cohort.select(cohort.splits == name)

    @cached_property
    def tables(self) -> dict[str, PatchTable]:
        """The patches of the splits "train" and "test" by the area rule."""
        return {"train": self._table(self.train), "test": self._table(self.test)}

    def _table(self, cohort: Cohort) -> PatchTable:
        table = by_area(self.config, cohort)
        self._check_images_of_each_class(cohort)
        counts = np.bincount(table.label, minlength=self.classes)
        of_class = dict(zip(cohort.class_names, counts.tolist(), strict=True))
        check_patches(self.config, str(cohort.splits[0]), of_class)
        return table

    def _check_images_of_each_class(self, cohort: Cohort) -> None:
        """Refuses a split in which a class has no image, so that no patch can be of it."""
        split = cohort.splits[0]
        for label, name in enumerate(cohort.label_names):
            if label in cohort.labels:
                continue
            whole = self.source.cohort
            patients = len(set(whole.patients[whole.labels == label].tolist()))
            raise UserError(
                f"No {split} image is {name}: none of the {patients} patients of this class is in "
                f"the {split} split. Add patients of it, move some by the manifest's column "
                f"`split`, or change data.test_share (now {self.config.data.test_share}) or seed."
            )

    @property
    def drawn(self) -> np.ndarray | None:
        """Which training patients are learned from, by their sorted ids; None for all."""
        return None

    @cached_property
    def sampler(self) -> sampling.Sampler:
        """How often each training patch is drawn."""
        settings = self.config.sampling
        try:
            return sampling.sampler(
                self.train,
                self.tables["train"],
                classes=tuple(settings.classes),
                sites=dict(settings.sites),
                patients=settings.patients,
                drawn=self.drawn,
            )
        except ValueError as error:
            raise UserError(f"sampling: {error}") from error

    @cached_property
    def streams(self) -> bool:
        """Whether training images are read as they are needed, and not kept on the device."""
        data = self.config.data
        if data.feed != "auto":
            return data.feed == "streaming"
        memory = devices.card_memory()
        most = memory // 2 if memory else data.resident_mb << 20
        return self.train.images.nbytes > most

    def batches(self, count: int) -> BatchSource:
        """Makes the source of batches of `count` real patches."""
        if self.streams:
            stream = self._streaming(self.train, self.sampler, count)
            draw = partial(resident.of_pixels, self.normalisation)
            return BatchSource(draw, stream.batches, reusable=False)
        images = self._resident
        return BatchSource(self._draw(count), lambda *_: repeat(images), reusable=True)

    @cached_property
    def _resident(self) -> resident.Resident:
        return resident.place(self.train, self.sampler)

    def _draw(self, batch: int) -> Callable[[resident.Resident, jax.Array], Batch]:
        size, normalise = self.config.patch.size, self.normalisation
        return partial(resident.draw_batch, size=size, batch=batch, normalise=normalise)

    def _streaming(
        self, cohort: Cohort, sampler: sampling.Sampler, batch: int
    ) -> streaming.Streaming:
        size, cache_mb = self.config.patch.size, self.config.data.cache_mb
        return streaming.Streaming(cohort, sampler, size=size, batch=batch, cache_mb=cache_mb)

    def patient_batches(self, sampler: PatientSampler, patches: int) -> BatchSource:
        """Makes the source of Poisson samples of the training patients.

        Args:
          sampler: of all of them.
          patches: of each patient of a sample.

        Raises:
          UserError: images are not kept on the device.
        """
        if self.streams:
            raise UserError(
                "Private steps draw patients from images on the device, and data.feed streams "
                "them. Set --config.data.feed=resident, or shrink them by data.downscale."
            )
        images = self._resident.images
        feed = patient_feed(images, self.tables["train"], sampler.patients)
        draw = partial(
            draw_patients,
            sampler=sampler,
            patches=patches,
            size=self.config.patch.size,
            normalise=self.normalisation,
        )
        return BatchSource(draw, lambda *_: repeat(feed), reusable=True)  # type: ignore[arg-type]

    def read(self, rows: np.ndarray) -> streaming.Pixels:
        """Reads the training patches of the given rows of their table, `[n]`, as they are."""
        sampler = sampling.sampler(self.train, self.tables["train"])
        return self._streaming(self.train, sampler, len(rows)).read(rows)

    def sample(self, split: str, count: int, key: jax.Array) -> Batch:
        """Draws `count` patches of a split, each class as often, whatever the loop's sampling."""
        cohort = self.train if split == "train" else self.test
        drawn = self.drawn if split == "train" else None
        sampler = sampling.sampler(cohort, self.tables[split], drawn=drawn)
        if not self.streams:
            images = self._resident.images if split == "train" else jnp.asarray(cohort.images)
            return jax.jit(self._draw(count))(resident.Resident(images, sampler), key)
        rows = np.asarray(sampling.draw_rows(sampler, key, count))
        pixels = self._streaming(cohort, sampler, count).read(rows)
        return resident.of_pixels(self.normalisation, pixels, key)

    @cached_property
    def normalisation(self) -> resident.Normalisation:
        """How pixels become input: measured on the training images, or the same for all cohorts."""
        if self.config.data.levels == "fixed":
            return resident.Normalisation(*((value,) * self.shape[-1] for value in FIXED_LEVELS))
        if self.source.prepared and self.external is None:
            return resident.from_levels(self.source.prepared.levels["train"])
        return resident.normalisation(self.train)

    @cached_property
    def patch_grid(self) -> patches.PatchGrid:
        """Where whole images are looked at."""
        patch = self.config.patch
        return patches.PatchGrid(patch.size, patch.stride, patch.border, self.normalisation)

    @property
    def classes(self) -> int:
        """K, number of patch classes."""
        return len(self.source.cohort.class_names)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one patch, `[H, W, C]`."""
        return (*(self.config.patch.size,) * 2, self.source.cohort.images.shape[-1])

    @property
    def geometry(self) -> PatchGeometry:
        """Which squares of the images are patches: the manifest's `patch`."""
        height, width, channels = self.source.cohort.images.shape[1:]
        return PatchGeometry(
            **dict(self.config.patch),
            image_height=height,
            image_width=width,
            channels=channels,
            downscale=self.source.recipe.downscale,
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what is learned from: the same settings may find other files in a folder."""
        if self.source.prepared:
            return str(self.source.prepared.metadata["sha256"])
        cohort = self.source.cohort
        # Drawn images are as their settings say, but for a pixel in a million that another number
        # of cores rounds otherwise: that must not keep a run from being resumed.
        drawn = kinds.kind_of(self.config).is_drawn
        pixels = () if drawn else (cohort.images, cohort.masks)
        return _digest(*pixels, cohort.labels, cohort.patients, cohort.splits)


def by_area(config: ml_collections.ConfigDict, cohort: Cohort) -> PatchTable:
    """Lists the patches of a cohort that the area rule keeps, of any classes or none.

    Raises:
      UserError: the settings of `patch` do not fit the images.
    """
    patch = config.patch
    check_patch_fits(config, *cohort.images.shape[1:3])
    try:
        return patching.patch_table(
            cohort,
            patch.size,
            patch.stride,
            irrelevant_below=patch.irrelevant_below,
            inside_above=patch.inside_above,
            border=patch.border,
        )
    except ValueError as error:
        raise UserError(f"patch: {error}") from error


def of_one_image(
    config: ml_collections.ConfigDict,
    image: np.ndarray,
    mask: np.ndarray | None,
    *,
    label: int,
    class_names: Sequence[str],
) -> PatchTable:
    """Lists the patches of an image by itself, as `by_area` does.

    Args:
      config: of a job.
      image: `[H, W]` uint8.
      mask: `[H, W]` bool; None where the cohort has no masks.
      label: of the image.
      class_names: of the patch classes, see `Cohort`.
    """
    masks, text = None if mask is None else mask[None], np.array([""])
    labels = np.array([label], np.int32)
    names = tuple(class_names)
    return by_area(
        config, Cohort(image[None, ..., None], masks, labels, text, text, text, text, names)
    )


def check_patches(config: ml_collections.ConfigDict, split: str, counts: Mapping[str, int]) -> None:
    """Refuses a split in which a class has no patch.

    Args:
      config: of a job.
      split: its name.
      counts: by its name, patches of each class in the split.

    Raises:
      UserError: naming the class, and the settings that could be changed.
    """
    patch = config.patch
    for name, count in counts.items():
        if count == 0:
            raise UserError(
                f"No {split} patch is {name}: with patches of {patch.size} px at stride "
                f"{patch.stride} none passes the area rule. Use smaller patches, or bring "
                f"patch.irrelevant_below (now {patch.irrelevant_below}) and patch.inside_above "
                f"(now {patch.inside_above}) closer together."
            )


def check_patch_fits(config: ml_collections.ConfigDict, height: int, width: int) -> None:
    """Refuses patches that are larger than the images.

    Args:
      config: of a job.
      height: of the images as they are cut, in pixels.
      width: likewise.

    Raises:
      UserError: naming the setting, and a value that fits.
    """
    size, downscale = config.patch.size, config.data.downscale
    if size > min(height, width):
        shrunken = f" after data.downscale {downscale}" if downscale > 1 else ""
        raise UserError(
            f"patch.size is {size}, which does not fit in images of {height}x{width} px{shrunken}. "
            f"Lower it, as --config.patch.size={suggest_patch(height, width)}, and patch.stride "
            f"with it."
        )


def suggest_patch(height: int, width: int) -> int:
    """Returns the side of a patch that is as large a part of an image as the papers' 299 of 2048.

    Args:
      height: of the image in pixels.
      width: likewise.
    """
    return max(1, round(299 / 2048 * min(height, width)))


def _digest(*parts: np.ndarray | None) -> str:
    digest = hashlib.sha256()
    for part in parts:
        if part is not None:
            digest.update(f"{part.shape} {part.dtype} ".encode())
            digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()
