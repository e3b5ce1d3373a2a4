"""Whole images from a package alone: a score, a decision and a heat map of each.

One image is in memory at a time, whatever their number, and its patches in batches, whatever its
size.
"""

import csv
import functools
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gxdistill import package, storage
from gxdistill.data import intensities
from gxdistill.data.files import folders, grey, images, reading
from gxdistill.data.files.manifest import Entry
from gxdistill.data.files.reading import Recipe
from gxdistill.errors import UserError
from gxdistill.evaluation import decision, patches
from gxdistill.evaluation.patches import PatchGrid
from gxdistill.package import cost
from gxdistill.pytrees import Cohort
from gxdistill.receive.budget import DEFAULT, Budget, check
from gxdistill.receive.networks import (
    Trained,
    from_weights,
    log_networks,
    network_of,
    train_networks,
)
from gxdistill.runtime.console import Log, Progress
from gxdistill.runtime.environment import pinned

_CACHED = cost.FORWARD_BYTES


def _list_files(paths: Sequence[Path], log: Log) -> list[tuple[Path, str]]:
    """Lists the files that paths name, folders with all that is in them, each with a short name."""
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
    for path, name in _list_files([folder], log):
        stem = str(Path(name).with_suffix(""))
        if stem in masks:
            raise UserError(f"{path} and {masks[stem]} would both be the mask of {stem}. Keep one.")
        masks[stem] = path
    return masks


def _masks_for(about: package.About, masks: Path | None, log: Log) -> dict[str, Path]:
    if not intensities.needs_mask(about.image_normalisation):
        return {}
    if masks is None:
        raise UserError(
            f"The grey values of each image are normalised by its organ "
            f"({about.image_normalisation}), so that each needs a mask. Name their folder as "
            f"--masks=FOLDER: files called as their images are, whatever their suffix."
        )
    return _list_masks(masks, log)


def _recipe(about: package.About) -> Recipe:
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


def _read(path: Path, mask: Path | None, recipe: Recipe) -> np.ndarray:
    """Reads one image as the package's images were read; `[H, W, 1]` uint8.

    Raises:
      BadEntryError: it cannot be read, or does not fit the size that the package knows.
    """
    with images.quiet():
        return reading.read_entry(Entry.of_image(path, mask), recipe).image[..., None]


# A trace for each image would take as long as many patches.
_largest_of = functools.lru_cache(maxsize=8)(cost.largest)


def patch_grid(about: package.About) -> PatchGrid:
    """Tells where the patches of an image lie, and what they look like to a network."""
    patch = about.patch
    return PatchGrid(patch.size, patch.stride, patch.border, about.normalisation)


def of_patches(trained: Trained, grid: PatchGrid, pixels: np.ndarray) -> np.ndarray:
    """Predicts the patches of one image.

    Args:
      trained: R networks.
      grid: from `patch_grid`.
      pixels: of the image, `[H, W, C]` uint8.

    Returns:
      Probabilities, the mean over the networks, `[n_patches, K]` float32.
    """
    alone = np.zeros(1, np.int32)
    text = np.array([""])
    cohort = Cohort(pixels[None], None, alone, text, text, text, text, ())
    shape = (grid.size, grid.size, pixels.shape[-1])
    most = max(1, _CACHED // _largest_of(trained.network, shape))
    count = len(grid.corners(cohort))
    # As few passes as the memory allows, all of one size.
    chunk = math.ceil(count / math.ceil(count / most))
    return patches.predict(trained.network, trained.params, cohort, grid, chunk=chunk).mean(0)[0]


def _row(about: package.About, how: package.Decision, probabilities: np.ndarray) -> dict[str, Any]:
    """Decides an image; the counts are of patches by their most probable class."""
    names = about.class_names
    scores = decision.score(how.rule, probabilities[None])
    outcome = int(decision.decide(scores, how.tau)[0])
    counts = np.bincount(probabilities.argmax(-1), minlength=len(names))
    return {
        "decision": "undecidable" if outcome < 0 else names[-2 + outcome],
        "undecidable": outcome < 0,
        "score": None if outcome < 0 else float(scores[0]),
        "tau": how.tau,
        **{f"patches {name}": int(count) for name, count in zip(names, counts, strict=True)},
    }


def _picture(patch: package.PatchGeometry, probabilities: np.ndarray, pixels: np.ndarray) -> bytes:
    """Draws an image with its heat map, and what it is not; PNG."""
    from PIL import Image, ImageDraw, PngImagePlugin

    from gxdistill.patching import patch_corners
    from gxdistill.report import pictures

    shape = pixels.shape[:2]
    corners = patch_corners(shape, patch.size, patch.stride, border=patch.border)
    heat = pictures.heat_map(probabilities, corners, patch.size, shape)
    photograph = pictures.whole(pixels[..., 0]).convert("RGBA")
    photograph.alpha_composite(pictures.overlay(*heat))
    page = Image.new("RGB", (max(photograph.width, 290), photograph.height + 14))
    page.paste(photograph.convert("RGB"))
    ImageDraw.Draw(page).text((2, photograph.height + 1), package.WARNING, fill="white")
    about, buffer = PngImagePlugin.PngInfo(), io.BytesIO()
    about.add_text("Comment", package.WARNING)
    page.save(buffer, "PNG", pnginfo=about)
    return buffer.getvalue()


def _predictions(
    trained: Trained,
    about: package.About,
    how: package.Decision,
    files: Sequence[tuple[Path, str]],
    masks: Mapping[str, Path],
    folder: Path,
    log: Log,
) -> Iterator[dict[str, Any]]:
    clock, recipe, grid = Progress(log, "predicting"), _recipe(about), patch_grid(about)
    for i, (path, name) in enumerate(files):
        try:
            pixels = _read(path, masks.get(str(Path(name).with_suffix(""))), recipe)
        except grey.BadEntryError as error:
            yield {"image": name, "refused": str(error)}
        else:
            probabilities = of_patches(trained, grid, pixels)
            picture = f"{i:04d}_{re.sub(r'[^A-Za-z0-9_.-]', '_', name)[-100:]}.png"
            storage.child(folder, picture).write_bytes(_picture(about.patch, probabilities, pixels))
            yield {"image": name, "heat_map": picture, **_row(about, how, probabilities)}
        clock(i + 1, len(files))


def _table(rows: Sequence[dict[str, Any]]) -> str:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([*map(storage.cell, columns), "note"])
    for row in rows:
        writer.writerow(
            [*(storage.cell(row.get(column, "")) for column in columns), package.WARNING]
        )
    return text.getvalue()


def _about(path: Path) -> package.About:
    return (package.load_weights(path) if package.is_weights(path) else package.load(path)).manifest


def _networks(path: Path, about: package.About, how: package.Decision, budget: Budget) -> Trained:
    """Trains or restores what decides, after a look at what deciding would take."""
    network, chosen = network_of(about)
    count = 1 if about.init.is_known else how.networks
    what = f"deciding one image by {count} network(s) {chosen.name} of {path}"
    check(what, cost.of_deciding(about, network, count), budget)
    if package.is_weights(path):
        return from_weights(path, budget=budget)
    return train_networks(path, count=None if about.init.is_known else count, budget=budget)


@pinned()
def predict(
    path: Path,
    paths: Sequence[Path],
    out: Path,
    log: Log,
    *,
    masks: Path | None = None,
    budget: Budget = DEFAULT,
) -> list[dict[str, Any]]:
    """Decides whole images with networks that are trained on a package, or by essential weights.

    Writes `predictions.csv`, `predictions.json` and a heat map of each image.

    Args:
      path: file of the package, or of essential weights.
      paths: images, PNG, JPEG, TIFF or DICOM, and folders of them.
      out: folder to write, which must not exist.
      log: is told the progress, and whether the network is the sender's, if that can be told.
      masks: folder of the organ's masks, each called as its image is, for a package whose images
        are normalised by the organ; others need none.
      budget: the most that training may take, and one image, by an estimate.

    Returns:
      What `predictions.json` holds of each image: `image`, and `refused` with the reason, or
      `decision`, `score`, `tau`, `undecidable`, `heat_map` and the number of patches of each class.

    Raises:
      UserError: the package cannot be read, decides no images or would take more than the budget,
        `out` exists, or there is no image that fits the package.
    """
    about = _about(path)
    how = about.decision
    if how is None or about.patch.channels != 1 or len(about.class_names) > 3:
        raise UserError(f"{path} decides no whole images, only patches. Train on it instead.")
    if out.exists():
        raise UserError(f"{out} exists already. Remove it, or choose another --out.")
    files, shown = _list_files(paths, log), _masks_for(about, masks, log)
    trained = _networks(path, about, how, budget)
    log_networks(trained, log)
    with storage.fresh_folder(out) as folder:
        rows = list(_predictions(trained, about, how, files, shown, folder, log))
        if all("refused" in row for row in rows):
            raise UserError(f"No image fits {path}; {rows[0]['image']}: {rows[0]['refused']}.")
        whole = {"note": package.WARNING, "package": trained.record["package"], "images": rows}
        (folder / "predictions.json").write_text(storage.json_text(whole), "utf-8")
        (folder / "predictions.csv").write_text(_table(rows), "utf-8")
    return rows
