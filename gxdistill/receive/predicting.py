"""Whole images from a package alone: a score, a decision and a heat map of each.

One image is in memory at a time, whatever their number, and its patches in batches, whatever its
size.
"""

import csv
import dataclasses
import functools
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gxdistill import package, storage
from gxdistill.data.files import grey
from gxdistill.errors import UserError
from gxdistill.evaluation import decision, likeness, patches
from gxdistill.evaluation.patches import PatchGrid
from gxdistill.package import cost
from gxdistill.patching import patch_corners
from gxdistill.pytrees import Cohort
from gxdistill.receive import calibration as calibrations
from gxdistill.receive import reading
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
_MOST_SENTENCES = 3  # On the kind of images: who reads more of them?


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


class Subject(NamedTuple):
    """A package, or essential weights, that decides whole images.

    Attributes:
      about: what it says of itself.
      decision: how it decides.
      digest: of its file.
    """

    about: package.About
    decision: package.Decision
    digest: str


class ImagePatches(NamedTuple):
    """An image that was read, and what the networks make of it; or why it was not.

    Attributes:
      name: of its file, below the folder that was named.
      refused: why it cannot be decided; None where it can, and only then is the rest given.
      pixels: as the networks are given it, `[H, W, C]` uint8.
      probabilities: of its patches, `[n_patches, K]`.
    """

    name: str
    refused: str | None
    pixels: np.ndarray
    probabilities: np.ndarray


_NOTHING = np.zeros(0)


def subject_of(path: Path) -> Subject:
    """Reads what decides images: a package, or essential weights.

    Raises:
      UserError: it cannot be read, or decides no whole images.
    """
    content = package.load_weights(path) if package.is_weights(path) else package.load(path)
    about, digest = content.manifest, content.sha256 or ""
    how = about.decision
    if how is None or about.patch.channels != 1 or len(about.class_names) > 3:
        raise UserError(f"{path} decides no whole images, only patches. Train on it instead.")
    return Subject(about, how, digest)


def networks_for(path: Path, subject: Subject, budget: Budget, log: Log) -> Trained:
    """Trains or restores what decides, after a look at what deciding would take; `log` is told.

    Raises:
      UserError: it would take more than the budget, or a network diverged.
    """
    about, how = subject.about, subject.decision
    network, chosen = network_of(about)
    count = 1 if about.init.is_known else how.networks
    what = f"deciding one image by {count} network(s) {chosen.name} of {path}"
    check(what, cost.of_deciding(about, network, count), budget)
    if package.is_weights(path):
        return from_weights(path, budget=budget)
    fresh = None if about.init.is_known else count
    return train_networks(path, count=fresh, budget=budget, log=log)


def each_image(
    trained: Trained,
    about: package.About,
    files: Sequence[tuple[Path, str]],
    masks: Mapping[str, Path],
    log: Log,
) -> Iterator[ImagePatches]:
    """Reads image after image and predicts its patches.

    Args:
      trained: from `networks_for`.
      about: of the package.
      files: from `reading.list_files`.
      masks: from `reading.masks_for`.
      log: is told the progress.

    Yields:
      An `ImagePatches` of each file, in their order.
    """
    clock, how, grid = Progress(log, "predicting"), reading.recipe(about), patch_grid(about)
    for i, (path, name) in enumerate(files):
        try:
            pixels = reading.read(path, masks.get(str(Path(name).with_suffix(""))), how)
        except grey.BadEntryError as error:
            yield ImagePatches(name, str(error), _NOTHING, _NOTHING)
        else:
            yield ImagePatches(name, None, pixels, of_patches(trained, grid, pixels))
        clock(i + 1, len(files))


def _corners(patch: package.PatchGeometry, pixels: np.ndarray) -> np.ndarray:
    return patch_corners(pixels.shape[:2], patch.size, patch.stride, border=patch.border)


def score(subject: Subject, image: ImagePatches) -> float:
    """Scores an image that was read; NaN where it is undecidable."""
    how, corners = subject.decision, _corners(subject.about.patch, image.pixels)
    probabilities = image.probabilities[None]
    return decision.score(how.rule, probabilities, corners=corners, weights=how.weights)[0]


def _row(subject: Subject, image: ImagePatches) -> dict[str, Any]:
    """Decides an image; the counts are of patches by their most probable class."""
    names, tau, scored = subject.about.class_names, subject.decision.tau, score(subject, image)
    outcome = int(decision.decide(np.array([scored]), tau)[0])
    counts = np.bincount(image.probabilities.argmax(-1), minlength=len(names))
    return {
        "decision": "undecidable" if outcome < 0 else names[-2 + outcome],
        "undecidable": outcome < 0,
        "score": None if outcome < 0 else float(scored),
        "tau": tau,
        **{f"patches {name}": int(count) for name, count in zip(names, counts, strict=True)},
    }


def _picture(patch: package.PatchGeometry, probabilities: np.ndarray, pixels: np.ndarray) -> bytes:
    """Draws an image with its heat map, and what it is not; PNG."""
    from PIL import Image, ImageDraw, PngImagePlugin

    from gxdistill.report import pictures

    corners = _corners(patch, pixels)
    heat = pictures.heat_map(probabilities, corners, patch.size, pixels.shape[:2])
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
    subject: Subject, tau_by: str, seen: Iterator[ImagePatches], folder: Path
) -> Iterator[tuple[dict[str, Any], dict[str, np.ndarray] | None]]:
    """Decides each image and draws its heat map; yields its row, and what it is like."""
    for i, image in enumerate(seen):
        if image.refused is not None:
            yield {"image": image.name, "refused": image.refused}, None
            continue
        picture = f"{i:04d}_{re.sub(r'[^A-Za-z0-9_.-]', '_', image.name)[-100:]}.png"
        drawn = _picture(subject.about.patch, image.probabilities, image.pixels)
        storage.child(folder, picture).write_bytes(drawn)
        row = _row(subject, image)
        features = likeness.describe_images(image.pixels[None], image.probabilities[None])
        yield {"image": image.name, "heat_map": picture, **row, "tau_by": tau_by}, features


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


def warnings(
    about: package.About,
    features: Sequence[Mapping[str, np.ndarray]],
    decisions: Sequence[str],
) -> list[str]:
    """Says what speaks against decisions: images of another kind, or all decided alike.

    Args:
      about: of the package.
      features: of each image, from `likeness.describe_images`.
      decisions: of each image: a class, or "undecidable".

    Returns:
      At most three sentences on the kind of the images, the strongest first, and one on decisions.
    """
    told: list[str] = []
    if about.likeness is not None and features:
        here = {name: np.concatenate([row[name] for row in features]) for name in features[0]}
        sender = package.to_json(about.likeness)
        told += likeness.compare(sender, here, about.class_names)[:_MOST_SENTENCES]
    if likeness.all_alike(decisions):
        told.append(
            "All your images are decided alike. If they are not, the threshold does not suit them: "
            "set another by `gxdistill calibrate`."
        )
    return told


@pinned()
def predict(
    path: Path,
    paths: Sequence[Path],
    out: Path,
    log: Log,
    *,
    masks: Path | None = None,
    calibration: Path | None = None,
    budget: Budget = DEFAULT,
) -> list[dict[str, Any]]:
    """Decides whole images with networks that are trained on a package, or by essential weights.

    Writes `predictions.csv`, `predictions.json` and a heat map of each image.

    Args:
      path: file of the package, or of essential weights.
      paths: images, PNG, JPEG, TIFF or DICOM, and folders of them.
      out: folder to write, which must not exist.
      log: is told the progress, whether the network is the sender's, if that can be told, and what
        speaks against the decisions.
      masks: folder of the organ's masks, each called as its image is, for a package whose images
        are normalised by the organ; others need none.
      calibration: file of `calibrate`, whose threshold decides; None takes the sender's.
      budget: the most that training may take, and one image, by an estimate.

    Returns:
      What `predictions.json` holds of each image: `image`, and `refused` with the reason, or
      `decision`, `score`, `tau`, `undecidable`, `heat_map`, the number of patches of each class,
      and `tau_by`, "sender" or "calibration".

    Raises:
      UserError: the package cannot be read, decides no images or would take more than the budget,
        the calibration is none or of another package, `out` exists, or there is no image that fits
        the package.
    """
    subject, tau_by = subject_of(path), "sender"
    if calibration is not None:
        tau = calibrations.load(calibration, subject.digest).tau
        how, tau_by = dataclasses.replace(subject.decision, tau=tau), "calibration"
        subject = subject._replace(decision=how)
    if out.exists():
        raise UserError(f"{out} exists already. Remove it, or choose another --out.")
    files, shown = reading.list_files(paths, log), reading.masks_for(subject.about, masks, log)
    trained = networks_for(path, subject, budget, log)
    log_networks(trained, log)
    guaranteed = package.guarantee(subject.about.ledger)
    log(f"privacy of the sender's patients: {guaranteed}")
    with storage.fresh_folder(out) as folder:
        seen = each_image(trained, subject.about, files, shown, log)
        pairs = list(_predictions(subject, tau_by, seen, folder))
        rows = [row for row, _ in pairs]
        if all("refused" in row for row in rows):
            raise UserError(f"No image fits {path}; {rows[0]['image']}: {rows[0]['refused']}.")
        features = [features for _, features in pairs if features is not None]
        decisions = [row["decision"] for row in rows if "decision" in row]
        told = warnings(subject.about, features, decisions)
        whole: dict[str, Any] = {"note": package.WARNING, "package": subject.digest, "images": rows}
        whole |= {"guarantee": guaranteed}
        whole |= {"tau": subject.decision.tau, "tau_by": tau_by, "warnings": told}
        (folder / "predictions.json").write_text(storage.json_text(whole), "utf-8")
        (folder / "predictions.csv").write_text(_table(rows), "utf-8")
    for sentence in told:
        log(f"warning: {sentence}")
    return rows
