"""A config with the objects made from it."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from gxdistill import patching
from gxdistill.data import source
from gxdistill.data.batches import resident, sampling, streaming
from gxdistill.errors import UserError
from gxdistill.evaluation import patches
from gxdistill.jobs import checks, cohorts
from gxdistill.models.cached import create_network
from gxdistill.package.seeds import Use, key
from gxdistill.pytrees import Batch, Cohort, Metadata, Network, PatchTable
from gxdistill.runtime import sharding
from gxdistill.runtime.console import Log

# What a run's result depends on; a checkpoint of other settings is not resumed.
_IDENTITY = ("seed", "data", "sampling", "patch", "network", "distill")


class Feed(NamedTuple):
    """Where the real batches of a loop of steps come from.

    Attributes:
      draw: `(given, key) -> Batch`, jit-able.
      given: `(key, first, own) -> iterator` of what `draw` takes from step `first` on; `key` is the
        one of which each step folds its own. Of a batch that does not last, only the places `own`
        may be asked for (an index, all by default).
      lasting: whether one that is given serves any number of steps, or just one.
    """

    draw: Callable[[Any, jax.Array], Batch]
    given: Callable[..., Iterator[Any]]
    lasting: bool


@dataclasses.dataclass(frozen=True)
class Job:
    """A config with the objects made from it, each at first use.

    Raises:
      UserError: a setting is missing, unknown, or not what it may be.
    """

    config: ml_collections.ConfigDict
    workdir: Path
    log: Log

    def __post_init__(self) -> None:
        """Refuses settings before any work is done."""
        checks.check(self.config)
        checks.check_epochs(self.config)

    @cached_property
    def source(self) -> source.Source:
        """The cohort with its quarantine."""
        found = cohorts.load(self.config, self.log)
        checks.check_classes(self.config, len(found.cohort.class_names))
        return found

    @cached_property
    def training(self) -> Cohort:
        """The training patients."""
        return self._split("train")

    @cached_property
    def test(self) -> Cohort:
        """The test patients."""
        return self._split("test")

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
        return {"train": self._table(self.training), "test": self._table(self.test)}

    def by_area(self, cohort: Cohort) -> PatchTable:
        """Lists the patches of a cohort that the area rule keeps, of any classes or none.

        Raises:
          UserError: the settings of `patch` do not fit the images.
        """
        patch = self.config.patch
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

    def _table(self, cohort: Cohort) -> PatchTable:
        patch, table = self.config.patch, self.by_area(cohort)
        counts = np.bincount(table.label, minlength=self.classes)
        for name, count in zip(cohort.class_names, counts, strict=True):
            if count == 0:
                raise UserError(
                    f"No {cohort.splits[0]} patch is {name}: with patches of {patch.size} px at "
                    f"stride {patch.stride} none passes the area rule. Use smaller patches, or "
                    f"bring patch.irrelevant_below (now {patch.irrelevant_below}) and "
                    f"patch.inside_above (now {patch.inside_above}) closer together."
                )
        return table

    @cached_property
    def sampler(self) -> sampling.Sampler:
        """How often each training patch is drawn."""
        settings = self.config.sampling
        try:
            return sampling.sampler(
                self.training,
                self.tables["train"],
                classes=tuple(settings.classes),
                sites=dict(settings.sites),
                patients=settings.patients,
            )
        except ValueError as error:
            raise UserError(f"sampling: {error}") from error

    @property
    def card_memory(self) -> int | None:
        """Bytes of an accelerator's memory that JAX may take; None of a CPU."""
        return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")

    @cached_property
    def streams(self) -> bool:
        """Whether training images are read as they are needed, and not kept on the device."""
        data = self.config.data
        if data.feed != "auto":
            return data.feed == "streaming"
        most = self.card_memory // 2 if self.card_memory else data.resident_mb << 20
        return self.training.images.nbytes > most

    def feed(self, batch: int) -> Feed:
        """Makes the feed of batches of `batch` real patches."""
        if self.streams:
            stream = self._streaming(self.training, self.sampler, batch)
            return Feed(partial(resident.of_pixels, self.normalise), stream.batches, lasting=False)
        images = self._resident
        return Feed(self._draw(batch), lambda *_: repeat(images), lasting=True)

    @cached_property
    def _resident(self) -> resident.Resident:
        return resident.resident(self.training, self.sampler)

    def _draw(self, batch: int) -> Callable[[resident.Resident, jax.Array], Batch]:
        size, normalise = self.config.patch.size, self.normalise
        return partial(resident.draw_batch, size=size, batch=batch, normalise=normalise)

    def _streaming(
        self, cohort: Cohort, sampler: sampling.Sampler, batch: int
    ) -> streaming.Streaming:
        size, cache_mb = self.config.patch.size, self.config.data.cache_mb
        return streaming.Streaming(cohort, sampler, size=size, batch=batch, cache_mb=cache_mb)

    def sample(self, split: str, count: int, key: jax.Array) -> Batch:
        """Draws `count` patches of a split, each class as often, whatever the loop's sampling."""
        cohort = self.training if split == "train" else self.test
        sampler = sampling.sampler(cohort, self.tables[split])
        if not self.streams:
            images = self._resident.images if split == "train" else jnp.asarray(cohort.images)
            return jax.jit(self._draw(count))(resident.Resident(images, sampler), key)
        rows = np.asarray(sampling.draw_rows(sampler, key, count))
        pixels = self._streaming(cohort, sampler, count).read(rows)
        return resident.of_pixels(self.normalise, pixels, key)

    @cached_property
    def mesh(self) -> jax.sharding.Mesh | None:
        """The devices of all processes; None where there is but one."""
        return None if jax.device_count() == 1 else self.shared_out(jax.devices())

    def shared_out(self, devices: Sequence[jax.Device]) -> jax.sharding.Mesh:
        """Arranges devices for this job's networks and batch.

        Raises:
          UserError: they cannot share the batch evenly.
        """
        settings = self.config.distill
        mesh = sharding.make_mesh(settings.networks, devices)
        rows = mesh.devices.shape[1]
        if settings.batch % rows:
            raise UserError(
                f"distill.batch is {settings.batch}, which {rows} devices cannot share evenly. "
                f"Choose a multiple of {rows}, or more distill.networks (now {settings.networks}), "
                f"which are shared out first among the {len(devices)} devices."
            )
        return mesh

    @cached_property
    def normalise(self) -> resident.Normalisation:
        """How pixels become input: measured on the training images."""
        if self.source.prepared:
            return resident.from_levels(self.source.prepared.levels["train"])
        return resident.normalisation(self.training)

    @cached_property
    def grid(self) -> patches.Grid:
        """Where whole images are looked at."""
        patch = self.config.patch
        return patches.Grid(patch.size, patch.stride, patch.border, self.normalise)

    @property
    def classes(self) -> int:
        """K, number of patch classes."""
        return len(self.source.cohort.class_names)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one patch, `[H, W, C]`."""
        return (*(self.config.patch.size,) * 2, self.source.cohort.images.shape[-1])

    @property
    def geometry(self) -> Metadata:
        """Of images and patches: the manifest's `patch`."""
        height, width, channels = self.source.cohort.images.shape[1:]
        return {
            **dict(self.config.patch),
            "image_height": height,
            "image_width": width,
            "channels": channels,
            "downscale": self.source.recipe.downscale,
        }

    @cached_property
    def network(self) -> Network:
        """The network that the config names."""
        checks.check_size(self.config, self.shape)
        net = self.config.network
        return create_network(net.name, net.options, self.shape, self.classes)

    def key(self, use: Use) -> jax.Array:
        """Derives the typed PRNG key of one use of randomness."""
        return key(self.config.seed, use)

    @property
    def known(self) -> bool:
        """Whether the initial weights are known."""
        return self.config.distill.init == "known"

    @cached_property
    def _cohort_digest(self) -> str:
        if self.source.prepared:
            return str(self.source.prepared.metadata["sha256"])
        return _digest(self.source.cohort)  # may be of a gigabyte, and is asked for several times

    def identity(self) -> Metadata:
        """All that the result depends on, as JSON can hold it: settings, a digest of the cohort."""
        chosen = {name: self.config[name] for name in _IDENTITY}
        settings = json.loads(ml_collections.ConfigDict(chosen).to_json_best_effort())
        # The feed that was taken, not the rule: another machine may choose otherwise.
        settings["data"] |= {"feed": "streaming" if self.streams else "resident"}
        del settings["data"]["resident_mb"]
        return {**settings, "cohort": self._cohort_digest}


def _digest(cohort: Cohort) -> str:
    """SHA-256 of what is learned from: the same settings may find other files in a folder."""
    digest = hashlib.sha256()
    for part in (cohort.images, cohort.masks, cohort.labels, cohort.patients, cohort.splits):
        if part is not None:
            digest.update(f"{part.shape} {part.dtype} ".encode())
            digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()
