"""The data side of a job: the cohort that a config names, read or only listed."""

from pathlib import Path
from typing import Any, NamedTuple

import ml_collections

from gxdistill.data import idx, phantom, source
from gxdistill.data.files.reading import Recipe
from gxdistill.data.prepared import reader
from gxdistill.errors import UserError
from gxdistill.runtime.console import Log, Progress

IMAGES = 200  # Training images where nothing says how many; as many as the papers have.


class Size(NamedTuple):
    """What a plan needs to know of a cohort.

    Attributes:
      images: that are trained on.
      shape: of an image, `[H, W, C]`.
      classes: K.
    """

    images: int
    shape: tuple[int, int, int]
    classes: int


def size_of(config: ml_collections.ConfigDict, images: int | None) -> Size:
    """Tells the size of the cohort that a config names, without reading its images.

    Args:
      config: of the job.
      images: how many are trained on; None for what the config says, or `IMAGES`.

    Raises:
      UserError: the config does not tell the size of an image.
    """
    data = config.data
    if data.kind == "phantom":
        by_label = (data.patients + 1) // 2, data.patients // 2
        trained = sum(round(data.train_share * count) for count in by_label)
        return Size(images or trained, (data.size, data.size, 1), 3)
    if data.kind == "mnist":
        return Size(images or min(data.limit or 60_000, 60_000), (28, 28, 1), 10)
    if data.image_size is None:
        raise UserError(
            "The config does not say how large the images are. Give their height and width in "
            "pixels, as --config.data.image_size='(2048, 2048)'."
        )
    height, width = (side // data.downscale for side in data.image_size)
    return Size(images or IMAGES, (height, width, 1), 1 + len(data.label_names))


def load(config: ml_collections.ConfigDict, log: Log) -> source.Source:
    """Reads the cohort that a config names.

    Raises:
      UserError: it cannot be read, or too much of it is bad.
    """
    data = config.data
    if data.kind == "phantom":
        cohort = phantom.phantom_cohort(
            config.seed, patients=data.patients, size=data.size, train_share=data.train_share
        )
        return source.Source(cohort, (), Path("phantom"), Recipe((data.size, data.size)), {})
    if data.kind == "mnist":
        cohort = idx.mnist_cohort(Path(data.path), limit=data.limit)
        return source.Source(cohort, (), Path(data.path), Recipe(cohort.images.shape[1:3]), {})
    if data.kind == "prepared":
        found = reader.read_prepared(Path(data.path))
        about = found.metadata
        how = Recipe(tuple(about["read_size"]), downscale=about["downscale"])
        return source.Source(found.cohort, (), Path(data.path), how, about["reading"], found)
    clock = Progress(log, "reading images")
    return source.read_cohort(Path(data.path), data.manifest, **_listed(config), progress=clock)


def listing(config: ml_collections.ConfigDict) -> source.Listing:
    """Lists what a config's manifest names; decodes no pixel.

    Raises:
      UserError: it cannot be used, or too much of it is bad.
    """
    return source.list_entries(Path(config.data.path), config.data.manifest, **_listed(config))


def _listed(config: ml_collections.ConfigDict) -> dict[str, Any]:
    data = config.data
    return {
        "columns": dict(data.columns),
        "label_names": tuple(data.label_names),
        "recipe": recipe(config),
        "test_share": data.test_share,
        "seed": config.seed,
        "max_bad_share": data.max_bad_share,
        "limit": data.limit,
    }


def recipe(config: ml_collections.ConfigDict) -> Recipe:
    """How a config wants files to become images."""
    data = config.data
    return Recipe(
        None if data.image_size is None else tuple(data.image_size),
        downscale=data.downscale,
        spacing=data.spacing,
        fit=data.fit,
        window=data.window,
        text=data.burned_in,
        organ=tuple(data.organ),
    )
