"""The kinds of data that a config may name: what each is read from, and how large it is."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from gxdistill.data import hippocampus, idx, intensities, phantom, shapes, source
from gxdistill.data.files.manifest import few, look_alikes
from gxdistill.data.files.reading import Recipe
from gxdistill.data.prepared import reader
from gxdistill.data.splits import EXTERNAL
from gxdistill.errors import UserError
from gxdistill.jobs import segmenters
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


class Kind(NamedTuple):
    """A kind of data.

    Attributes:
      load: `(config, log) -> Source`, reads the cohort.
      size: `(config, images) -> Size`, without reading it; `images` is None or how many.
      from_files: whether its images are files that a manifest lists.
      is_prepared: whether it was checked and written by `gxdistill prepare`.
      is_drawn: whether its images are drawn by the settings alone.
    """

    load: Callable[[ml_collections.ConfigDict, Log], source.Source]
    size: Callable[[ml_collections.ConfigDict, int | None], Size]
    from_files: bool = False
    is_prepared: bool = False
    is_drawn: bool = False


def _normalised(whole: source.Source, config: ml_collections.ConfigDict) -> source.Source:
    """Normalises images that come from no file of their own."""
    way, cohort = config.data.normalise, whole.cohort
    if intensities.needs_mask(way) and cohort.masks is None:
        raise UserError(
            f"data.normalise is {way!r}, and these images have no masks. Choose 'cohort', 'image' "
            f"or 'image_histogram'."
        )
    masks = cohort.masks if cohort.masks is not None else [None] * len(cohort.images)
    images = np.stack(
        [
            intensities.normalise(image[..., 0], mask, way)[..., None]
            for image, mask in zip(cohort.images, masks, strict=True)
        ]
    )
    recipe = dataclasses.replace(whole.recipe, normalise=way)
    return dataclasses.replace(
        whole, cohort=dataclasses.replace(cohort, images=images), recipe=recipe
    )


def _load_phantom(config: ml_collections.ConfigDict, _: Log) -> source.Source:
    data = config.data
    cohort = phantom.phantom_cohort(
        config.seed, patients=data.patients, size=data.size, train_share=data.train_share
    )
    return _normalised(
        source.Source(cohort, (), Path("phantom"), Recipe((data.size, data.size)), {}), config
    )


def _phantom_size(config: ml_collections.ConfigDict, images: int | None) -> Size:
    data = config.data
    by_label = (data.patients + 1) // 2, data.patients // 2
    trained = sum(round(data.train_share * count) for count in by_label)
    return Size(images or trained, (data.size, data.size, 1), 3)


def _load_mnist(config: ml_collections.ConfigDict, _: Log) -> source.Source:
    data = config.data
    cohort = idx.mnist_cohort(Path(data.path), limit=data.limit)
    return _normalised(
        source.Source(cohort, (), Path(data.path), Recipe(cohort.images.shape[1:3]), {}), config
    )


def _mnist_size(config: ml_collections.ConfigDict, images: int | None) -> Size:
    return Size(images or min(config.data.limit or 60_000, 60_000), (28, 28, 1), 10)


def _load_hippocampus(config: ml_collections.ConfigDict, _: Log) -> source.Source:
    data = config.data
    cohort = hippocampus.slices(Path(data.path), limit=data.limit)
    recipe = Recipe(cohort.images.shape[1:3])
    return _normalised(source.Source(cohort, (), Path(data.path), recipe, {}), config)


def _hippocampus_size(_: ml_collections.ConfigDict, images: int | None) -> Size:
    return Size(images or 9719, (48, 48, 1), 1)


def _load_shapes(config: ml_collections.ConfigDict, _: Log) -> source.Source:
    data = config.data
    cohort = shapes.shapes_cohort(
        config.seed, images=data.patients, size=data.size, train_share=data.train_share
    )
    recipe = Recipe((data.size, data.size))
    return _normalised(source.Source(cohort, (), Path("shapes"), recipe, {}), config)


def _shapes_size(config: ml_collections.ConfigDict, images: int | None) -> Size:
    data = config.data
    trained = round(data.train_share * data.patients)
    return Size(images or trained, (data.size, data.size, 1), 1)


def _load_prepared(config: ml_collections.ConfigDict, _: Log) -> source.Source:
    path = Path(config.data.path)
    prepared = reader.read_prepared(path)
    about = prepared.metadata
    # Sets that do not say so are of before there was a choice.
    way = about.get("normalise", "cohort")
    if config.data.normalise not in ("cohort", way):
        raise UserError(
            f"data.normalise is {config.data.normalise!r}, and the set in {path} was prepared with "
            f"{way!r}. Leave it out, or prepare the set anew."
        )
    recipe = Recipe(tuple(about["read_size"]), downscale=about["downscale"], normalise=way)
    return source.Source(prepared.cohort, (), path, recipe, about["reading"], prepared)


def _load_files(config: ml_collections.ConfigDict, log: Log) -> source.Source:
    data, clock = config.data, Progress(log, "reading images")
    read = source.read_cohort(Path(data.path), data.manifest, **_listed(config), progress=clock)
    alike = look_alikes(read.cohort.patients.tolist())
    if alike:
        pairs = few([f"{known} / {other}" for known, other in alike])
        log(
            f"ids of patients that may be of the same one, of whom training and test would then "
            f"both have images: {pairs}; correct the manifest if they are"
        )
    for note in read.notes:
        log(f"note: {note}")
    return read


def _files_size(config: ml_collections.ConfigDict, images: int | None) -> Size:
    data = config.data
    if data.image_size is None:
        raise UserError(
            "The config does not say how large the images are. Give their height and width in "
            "pixels, as --config.data.image_size='(2048, 2048)'."
        )
    height, width = (side // data.downscale for side in data.image_size)
    channels = 3 if data.colour else 1
    return Size(images or IMAGES, (height, width, channels), 1 + len(data.label_names))


KINDS = {
    "manifest": Kind(_load_files, _files_size, from_files=True),
    "prepared": Kind(_load_prepared, _files_size, is_prepared=True),
    "phantom": Kind(_load_phantom, _phantom_size, is_drawn=True),
    "mnist": Kind(_load_mnist, _mnist_size),
    "hippocampus": Kind(_load_hippocampus, _hippocampus_size),
    "shapes": Kind(_load_shapes, _shapes_size, is_drawn=True),
}


def kind_of(config: ml_collections.ConfigDict) -> Kind:
    """Returns the kind of data that a config names."""
    return KINDS[config.data.kind]


def check_grey(config: ml_collections.ConfigDict, command: str) -> None:
    """Refuses images in colours, and masks of several classes, for a command that knows neither.

    Raises:
      UserError: naming the setting.
    """
    for name in ("colour", "mask_classes"):
        if config.data[name]:
            raise UserError(
                f"data.{name} is {config.data[name]}; `{command}` knows grey images with masks of "
                f"an organ alone. `gxdistill segment train` reads the manifest as it is."
            )


def size_of(config: ml_collections.ConfigDict, images: int | None) -> Size:
    """Tells the size of the cohort that a config names, without reading its images.

    Args:
      config: of the job.
      images: how many are trained on; None for what the config says, or `IMAGES`.

    Raises:
      UserError: the config does not tell the size of an image.
    """
    return kind_of(config).size(config, images)


def load(config: ml_collections.ConfigDict, log: Log) -> source.Source:
    """Reads the cohort that a config names.

    Raises:
      UserError: it cannot be read, or too much of it is bad, or `data.external` is none of its
        sites.
    """
    whole = kind_of(config).load(config, log)
    return _kept_out(whole, config.data.external) if config.data.external else whole


def _kept_out(whole: source.Source, site: str) -> source.Source:
    """Gives the images of a site a split of their own, so that nothing is learned from them."""
    cohort = whole.cohort
    if site not in cohort.sites:
        known = ", ".join(sorted(set(cohort.sites.tolist())))
        raise UserError(
            f"data.external is {site!r}, and the sites of the cohort are {known or 'not stated'}. "
            f"Name one of them."
        )
    splits = np.where(cohort.sites == site, EXTERNAL, cohort.splits)
    return dataclasses.replace(whole, cohort=dataclasses.replace(cohort, splits=splits))


def list_files(
    config: ml_collections.ConfigDict, log: Log, *, max_bad_share: float | None = None
) -> source.Listing:
    """Lists what a config's manifest names, see `source.list_entries`.

    Args:
      config: of the job.
      log: is told how the manifest was understood.
      max_bad_share: takes the place of the config's.

    Raises:
      UserError: it cannot be used, or too much of it is bad.
    """
    listed = _listed(config)
    if max_bad_share is not None:
        listed["max_bad_share"] = max_bad_share
    listing = source.list_entries(Path(config.data.path), config.data.manifest, **listed)
    for note in listing.notes:
        log(f"note: {note}")
    return listing


def files_of(config: ml_collections.ConfigDict) -> Path | None:
    """Returns the folder of the files that a manifest names; None where it is the manifest's."""
    return Path(config.data.files).absolute() if config.data.files else None


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
        "files": files_of(config),
        "splits": dict(data.splits),
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
        segment=segmenters.read(Path(data.segmenter)) if data.segmenter else None,
        normalise=data.normalise,
        colour=data.colour,
        classes=len(data.mask_classes),
    )
