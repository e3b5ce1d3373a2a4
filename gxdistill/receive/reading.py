"""A receiver's files as the sender's were read: from paths to pixels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gxdistill import package
from gxdistill.data import intensities
from gxdistill.data.files import folders, images, reading
from gxdistill.data.files.manifest import Entry
from gxdistill.data.files.reading import Recipe
from gxdistill.errors import UserError
from gxdistill.runtime.console import Log


def list_files(paths: Sequence[Path], log: Log) -> list[tuple[Path, str]]:
    """Lists the files that paths name, folders with all that is in them, each with a short name.

    Raises:
      UserError: there is none.
    """
    files: list[tuple[Path, str]] = []
    for path in paths:
        if path.is_dir():
            inside, passed = folders.list_files(path)
            files += [(file, file.relative_to(path).as_posix()) for file in inside]
            if passed:
                log(f"note: {folders.count_passed(passed, [path])}")
        else:
            files.append((path, path.name))
    if not files:
        raise UserError(f"There is no file in {', '.join(map(str, paths))}. Name images.")
    return files


def _list_masks(folder: Path, log: Log) -> dict[str, Path]:
    """Finds the mask of each image by its name in the folder, without the suffix."""
    masks: dict[str, Path] = {}
    for path, name in list_files([folder], log):
        stem = str(Path(name).with_suffix(""))
        if stem in masks:
            raise UserError(f"{path} and {masks[stem]} would both be the mask of {stem}. Keep one.")
        masks[stem] = path
    return masks


def masks_for(about: package.About, masks: Path | None, log: Log) -> dict[str, Path]:
    """Finds the masks of images that are normalised by their organ, by `stem` of the image's name.

    Raises:
      UserError: they are needed and not given, or two would be of the same image.
    """
    if not intensities.needs_mask(about.image_normalisation):
        return {}
    if masks is None:
        raise UserError(
            f"The grey values of each image are normalised by its organ "
            f"({about.image_normalisation}), so that each needs a mask. Name their folder as "
            f"--masks=FOLDER: files called as their images are, whatever their suffix."
        )
    return _list_masks(masks, log)


def recipe(about: package.About) -> Recipe:
    """Reads images as the sender's were read."""
    patch, way = about.patch, about.reading
    size = (patch.image_height * patch.downscale, patch.image_width * patch.downscale)
    normalise = about.image_normalisation
    if way is None:
        return Recipe(size, downscale=patch.downscale, text="keep", normalise=normalise)
    return Recipe(
        size,
        normalise=normalise,
        downscale=patch.downscale,
        spacing=way.spacing,
        fit=way.fit,
        window=way.window,
        text=way.text,
    )


def read(path: Path, mask: Path | None, how: Recipe) -> np.ndarray:
    """Reads one image as the package's images were read; `[H, W, 1]` uint8.

    Raises:
      BadEntryError: it cannot be read, or does not fit the size that the package knows.
    """
    with images.quiet():
        return reading.read_entry(Entry.of_image(path, mask), how).image[..., None]
