"""A config with the objects made from it."""

import dataclasses
import enum
import json
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

from gxdistill import evaluate, models, patching
from gxdistill.data import batches, idx, phantom, source
from gxdistill.errors import UserError
from gxdistill.pytrees import Batch, Cohort, Metadata, Network, PatchTable
from gxdistill.run import defaults
from gxdistill.run.progress import Progress, Say

# What a run's result depends on; a checkpoint of other settings is not resumed.
_IDENTITY = ("seed", "data", "patch", "network", "distill")


class Use(enum.IntEnum):
    """The uses of randomness in a job; each has its key."""

    START = 0
    LOOP = 1
    KNOWN = 2
    FRESH = 3
    POOL = 4
    BASELINE = 5


def load(config: ml_collections.ConfigDict, say: Say) -> source.Source:
    """Reads the cohort that a config names.

    Raises:
      UserError: it cannot be read, or too much of it is bad.
    """
    data = config.data
    if data.kind == "phantom":
        cohort = phantom.phantom_cohort(config.seed, patients=data.patients, size=data.size)
        return source.Source(cohort, (), Path("phantom"), (data.size, data.size), 1)
    if data.kind == "mnist":
        cohort = idx.mnist_cohort(Path(data.path), limit=data.limit)
        return source.Source(cohort, (), Path(data.path), cohort.images.shape[1:3], 1)
    clock = Progress(say, "reading images")
    return source.read_cohort(
        Path(data.path),
        data.manifest,
        columns=dict(data.columns),
        label_names=tuple(data.label_names),
        image_size=None if data.image_size is None else tuple(data.image_size),
        downscale=data.downscale,
        test_share=data.test_share,
        seed=config.seed,
        max_bad_share=data.max_bad_share,
        limit=data.limit,
        progress=clock,
    )


@dataclasses.dataclass(frozen=True)
class Job:
    """A config with the objects made from it, each at first use."""

    config: ml_collections.ConfigDict
    workdir: Path
    say: Say

    def __post_init__(self) -> None:
        """Refuses settings that no job can have."""
        defaults.check(self.config)

    @cached_property
    def source(self) -> source.Source:
        """The cohort with its quarantine."""
        return load(self.config, self.say)

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
        return cohort.select(cohort.splits == name)

    def table(self, cohort: Cohort) -> PatchTable:
        """Lists the patches of a part of the cohort by the area rule."""
        patch = self.config.patch
        try:
            table = patching.patch_table(
                cohort,
                patch.size,
                patch.stride,
                irrelevant_below=patch.irrelevant_below,
                inside_above=patch.inside_above,
                border=patch.border,
            )
        except ValueError as error:
            raise UserError(f"patch: {error}") from error
        counts = np.bincount(table.label, minlength=self.classes)
        for name, count in zip(cohort.class_names, counts, strict=True):
            if count == 0:
                raise UserError(
                    f"No {cohort.splits[0]} patch is {name}: with patches of {patch.size} px at "
                    f"stride {patch.stride} none passes the area rule. Use smaller patches, or "
                    f"lower patch.inside_above (now {patch.inside_above})."
                )
        return table

    @cached_property
    def normalise(self) -> batches.Normalisation:
        """How pixels become input: measured on the training images."""
        return batches.normalisation(self.training)

    @cached_property
    def grid(self) -> evaluate.Grid:
        """Where whole images are looked at."""
        patch = self.config.patch
        return evaluate.Grid(patch.size, patch.stride, patch.border, self.normalise)

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
            "downscale": self.source.downscale,
        }

    @cached_property
    def network(self) -> Network:
        """The network that the config names."""
        net = self.config.network
        return create_network(net.name, dict(net.options), self.shape, self.classes)

    def draw(self, batch: int) -> Callable[[batches.Resident, jax.Array], Batch]:
        """Builds the sampler of class-balanced real batches."""
        size, normalise = self.config.patch.size, self.normalise
        return partial(batches.draw_balanced, size=size, batch=batch, normalise=normalise)

    def key(self, use: Use) -> jax.Array:
        """Derives the typed PRNG key of one use of randomness."""
        return jax.random.fold_in(jax.random.key(self.config.seed), int(use))

    @property
    def known(self) -> bool:
        """Whether the initial weights are known."""
        return self.config.distill.init == "known"

    def identity(self) -> Metadata:
        """All settings that the result depends on, as JSON can hold them."""
        chosen = {name: self.config[name] for name in _IDENTITY}
        return json.loads(ml_collections.ConfigDict(chosen).to_json_best_effort())


def create_network(
    name: str, options: dict[str, Any], shape: tuple[int, ...], classes: int
) -> Network:
    """Creates a network of the zoo for a user's settings.

    Raises:
      UserError: a name, an option or the size of the images does not fit.
    """
    try:
        return models.create(name, shape=shape, classes=classes, **options)
    except ValueError as error:
        raise UserError(f"network: {error}") from error
