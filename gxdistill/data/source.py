"""Reads a cohort from a manifest and its files; quarantines what is broken, with the reason."""

import csv
import dataclasses
import io
import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np

from gxdistill import _check, storage
from gxdistill.data.files import images, reading
from gxdistill.data.files.grey import BadEntryError
from gxdistill.data.files.manifest import Entry, Quarantined, duplicates, few, read_manifest
from gxdistill.data.files.reading import Facts, Recipe
from gxdistill.data.prepared.reader import Prepared
from gxdistill.data.splits import SPLITS, check_splits, draw_splits
from gxdistill.errors import UserError
from gxdistill.pytrees import Cohort, Metadata

Progress = Callable[[int, int], None]  # (images done, images in all)

_THREADS = min(8, os.cpu_count() or 1)  # Pillow decodes outside the interpreter's lock.
_T = TypeVar("_T")
_AS_THEY_ARE = Recipe()


class TooManyBadError(UserError):
    """More of a cohort is bad than is allowed.

    Attributes:
      quarantine: all that was found bad, for `write_quarantine`.
    """

    def __init__(self, message: str, quarantine: tuple[Quarantined, ...]):
        super().__init__(message)
        self.quarantine = quarantine


@dataclasses.dataclass(frozen=True)
class Source:
    """A cohort and the account of how it was read.

    Attributes:
      cohort: the images that passed.
      quarantine: what did not, in the manifest's order.
      manifest: path of the manifest.
      recipe: how its files became images.
      reading: how they were read (`reading.account`); empty where no file was.
      prepared: the set that it was read from; None where that was none.
    """

    cohort: Cohort
    quarantine: tuple[Quarantined, ...]
    manifest: Path
    recipe: Recipe
    reading: Metadata
    prepared: Prepared | None = None


@dataclasses.dataclass(frozen=True)
class Listing:
    """What a manifest lists, checked as far as headers tell.

    Attributes:
      entries: those that may be read, each with its split.
      bad: by line of the manifest, those that may not.
      manifest: its path.
      recipe: how to read them, with the size of the cohort.
    """

    entries: tuple[Entry, ...]
    bad: dict[int, Quarantined]
    manifest: Path
    recipe: Recipe


def read_cohort(
    root: Path,
    manifest: str,
    *,
    columns: Mapping[str, str] | None = None,
    label_names: Sequence[str] = ("non-gastritis", "gastritis"),
    recipe: Recipe = _AS_THEY_ARE,
    test_share: float = 0.25,
    seed: int = 0,
    max_bad_share: float = 0.05,
    limit: int | None = None,
    progress: Progress | None = None,
) -> Source:
    """Reads the images that a manifest lists, checks them, and divides them by patient.

    Args:
      root: folder of the data set.
      manifest: path of the CSV in it, see `list_entries`.
      columns: field to another file's column, or to a template of columns (`read_manifest`).
      label_names: names of the image classes, by label.
      recipe: how files become images.
      test_share: share of patients drawn for the test, where no split is given.
      seed: of the draw.
      max_bad_share: share of entries that may be quarantined before the job stops.
      limit: reads only this many entries, evenly over labels, sites and splits.
      progress: called with the number of images decoded and of all.

    Returns:
      The cohort, and what was left out.

    Raises:
      UserError: the manifest cannot be used, too much is bad (`TooManyBadError`), a class has no
        training image, a patient is in both given splits, or `downscale` does not divide the size.
      ValueError: an argument is out of its range.
    """
    listing = list_entries(
        root,
        manifest,
        columns=columns,
        label_names=label_names,
        recipe=recipe,
        test_share=test_share,
        seed=seed,
        max_bad_share=max_bad_share,
        limit=limit,
    )
    path, bad = listing.manifest, dict(listing.bad)
    total = len(listing.entries) + len(bad)
    entries, pixels, masks, facts = _decode(listing.entries, bad, listing.recipe, progress)
    stop_if_too_bad(bad, total, max_bad_share, path)
    cohort = Cohort(
        images=pixels,
        masks=masks,
        labels=np.array([entry.label for entry in entries], np.int32),
        patients=np.array([entry.patient for entry in entries]),
        sites=np.array([entry.site for entry in entries]),
        splits=np.array([entry.split for entry in entries]),
        names=np.array([entry.name for entry in entries]),
        class_names=(*(() if masks is None else ("irrelevant",)), *label_names),
    )
    check_classes(entries, label_names, path)
    return Source(
        cohort, in_order(bad), path, listing.recipe, reading.account(listing.recipe, facts)
    )


def list_entries(
    root: Path,
    manifest: str,
    *,
    columns: Mapping[str, str] | None = None,
    label_names: Sequence[str] = ("non-gastritis", "gastritis"),
    recipe: Recipe = _AS_THEY_ARE,
    test_share: float = 0.25,
    seed: int = 0,
    max_bad_share: float = 0.05,
    limit: int | None = None,
) -> Listing:
    """Reads a manifest and the headers of its images; decodes no pixel.

    The manifest is a CSV, UTF-8 with a header: `image, mask, label, patient, site, split, spacing`,
    the last three and `mask` optional, paths relative to its folder. Images are PNG, JPEG, TIFF or
    DICOM (`images.read_image` tells how more than 8 bits become 8), masks these or polygons
    (`masks.read_mask`). Given splits are kept; without them `splits.draw_splits` draws.

    Args and errors are those of `read_cohort`.
    """
    _check.share(test_share=test_share, max_bad_share=max_bad_share)
    if limit is not None:
        _check.positive(limit=limit)
    path = Path(root) / manifest
    entries, bad = read_manifest(
        path, columns=columns or {}, label_names=label_names, limit=limit, seed=seed
    )
    total = len(entries) + len(bad)
    if not recipe.segment and any(entry.mask for entry in entries):
        bad |= {e.line: Quarantined(e.name, "mask missing") for e in entries if not e.mask}
        entries = [entry for entry in entries if entry.mask]
    stop_if_too_bad(bad, total, max_bad_share, path)
    given = any(entry.split for entry in entries)
    if given:
        check_splits([entry.split for entry in entries], [entry.patient for entry in entries])
    size, entries = _of_one_size(entries, bad, recipe)
    stop_if_too_bad(bad, total, max_bad_share, path)
    _check_divides(recipe.downscale, size)
    if not given:
        labels = np.array([entry.label for entry in entries], np.int32)
        patients, sites = (
            np.array([getattr(entry, field) for entry in entries]) for field in ("patient", "site")
        )
        splits = draw_splits(labels, patients, sites, test_share=test_share, seed=seed)
        entries = [e._replace(split=str(s)) for e, s in zip(entries, splits, strict=True)]
    return Listing(tuple(entries), bad, path, dataclasses.replace(recipe, size=size))


def write_quarantine(path: Path, quarantine: Sequence[Quarantined]) -> None:
    """Writes a CSV of name and reason, at one stroke.

    Args:
      path: of the file; a former one is replaced.
      quarantine: what was left out.

    Raises:
      UserError: the file cannot be written.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([Quarantined._fields, *quarantine])
    storage.write_text(path, text.getvalue())


def summary(source: Source) -> Metadata:
    """Counts a cohort for people: patients, images, sites, labels by split, quarantine.

    Returns:
      What JSON can hold.
    """
    cohort = source.cohort
    names = cohort.label_names
    # Names of files do not pass into a prepared set; how many were left out does.
    left_out = (
        source.prepared.metadata["quarantined"] if source.prepared else len(source.quarantine)
    )

    def count(split: str) -> Metadata:
        chosen = cohort.select(cohort.splits == split)
        return {
            "images": len(chosen.labels),
            "patients": len(set(chosen.patients.tolist())),
            "labels": {name: int((chosen.labels == i).sum()) for i, name in enumerate(names)},
        }

    return {
        "manifest": source.manifest.name,
        "images": len(cohort.labels),
        "patients": len(set(cohort.patients.tolist())),
        "sites": dict(sorted(Counter(cohort.sites.tolist()).items())),
        "splits": {split: count(split) for split in SPLITS},
        "masks": cohort.masks is not None,
        "image_size": list(cohort.images.shape[1:3]),
        "read_size": list(source.recipe.size or cohort.images.shape[1:3]),
        "downscale": source.recipe.downscale,
        "normalise": source.recipe.normalise,
        "reading": dict(source.reading),
        "quarantine": {
            "count": left_out,
            "reasons": dict(Counter(entry.reason for entry in source.quarantine).most_common()),
            "entries": [entry._asdict() for entry in source.quarantine],
        },
    }


def in_order(bad: Mapping[int, Quarantined]) -> tuple[Quarantined, ...]:
    """Returns what was left out in the order of the manifest's lines."""
    return tuple(bad[line] for line in sorted(bad))


def stop_if_too_bad(bad: Mapping[int, Quarantined], total: int, share: float, path: Path) -> None:
    """Refuses a cohort of which too much was left out.

    Args:
      bad: what was left out, by line of the manifest.
      total: number of entries that were to be read.
      share: of them that may be bad.
      path: of the manifest.

    Raises:
      TooManyBadError: more is bad, or all.
    """
    if len(bad) <= share * total and len(bad) < total:
        return
    quarantine = in_order(bad)
    shown = "; ".join(f"{entry.name!r}: {entry.reason}" for entry in quarantine[:3])
    more = f"; and {len(bad) - 3} more" if len(bad) > 3 else ""
    raise TooManyBadError(
        f"{len(bad)} of {total} entries of {path} are bad, {share:.1%} are allowed: "
        f"{shown}{more}. Mend them there, or raise `max_bad_share`.",
        quarantine,
    )


def _attempt(
    work: Callable[[int, Entry], _T],
    entries: Sequence[Entry],
    bad: dict[int, Quarantined],
    progress: Progress | None = None,
) -> dict[int, _T]:
    """Does `work(slot, entry)` in threads; returns results by slot, adds to `bad` what failed."""

    def attempt(slot: int) -> _T | BadEntryError:
        try:
            return work(slot, entries[slot])
        except BadEntryError as error:
            return error

    done = {}
    with images.quiet(), ThreadPoolExecutor(_THREADS) as pool:
        for slot, result in enumerate(pool.map(attempt, range(len(entries)))):
            if isinstance(result, BadEntryError):
                bad[entries[slot].line] = Quarantined(entries[slot].name, str(result))
            else:
                done[slot] = result
            if progress:
                progress(slot + 1, len(entries))
    return done


def _of_one_size(
    entries: Sequence[Entry], bad: dict[int, Quarantined], recipe: Recipe
) -> tuple[tuple[int, int], list[Entry]]:
    """Returns the size of the cohort in pixels and the entries that fit it."""
    sizes = _attempt(lambda _, entry: reading.read_size(entry, recipe.spacing), entries, bad)
    size = recipe.size or _common_size(list(sizes.values()), recipe)
    fitting = []
    for slot, other in sizes.items():
        try:
            reading.check_fits(other, size, recipe.fit)
            fitting.append(entries[slot])
        except BadEntryError as error:
            bad[entries[slot].line] = Quarantined(entries[slot].name, str(error))
    return size, fitting


def _common_size(sizes: Sequence[tuple[int, int]], recipe: Recipe) -> tuple[int, int]:
    if not sizes:
        return 0, 0
    if recipe.fit == "pad":
        largest = np.max(sizes, axis=0)
        height, width = (-(-largest // recipe.downscale) * recipe.downscale).tolist()
        return height, width
    counts = Counter(sizes)
    return max(counts, key=lambda size: (counts[size], size))


def _decode(
    entries: Sequence[Entry],
    bad: dict[int, Quarantined],
    recipe: Recipe,
    progress: Progress | None,
) -> tuple[list[Entry], np.ndarray, np.ndarray | None, list[Facts]]:
    """Returns the entries that could be read, their pixels `[N, H, W, 1]`, masks and facts."""
    assert recipe.size
    shape = (len(entries), *(side // recipe.downscale for side in recipe.size))
    pixels = np.empty((*shape, 1), np.uint8)
    masks = np.empty(shape, bool) if recipe.segment or entries[0].mask else None

    def decode(slot: int, entry: Entry) -> tuple[bytes, Facts]:
        sample = reading.read_entry(entry, recipe)
        pixels[slot, :, :, 0] = sample.image
        if masks is not None and sample.mask is not None:
            masks[slot] = sample.mask
        return sample.digest, sample.facts

    done = _attempt(decode, entries, bad, progress)
    twice = duplicates({entries[slot]: digest for slot, (digest, _) in done.items()}, "pixels")
    bad |= twice
    kept = [slot for slot in done if entries[slot].line not in twice]
    # Closes the gaps in place: a copy would need the memory of the cohort once more.
    for new, old in enumerate(kept):
        pixels[new] = pixels[old]
        if masks is not None:
            masks[new] = masks[old]
    n = len(kept)
    facts = [done[slot][1] for slot in kept]
    return [entries[slot] for slot in kept], pixels[:n], None if masks is None else masks[:n], facts


def _check_divides(downscale: int, size: tuple[int, int]) -> None:
    common = math.gcd(*size)
    if common % downscale:
        factors = [str(f) for f in range(1, common + 1) if common % f == 0]
        raise UserError(
            f"`downscale` {downscale} does not divide images of {reading.in_pixels(size)}. "
            f"These do: {', '.join(factors)}."
        )


def check_classes(entries: Sequence[Entry], label_names: Sequence[str], path: Path) -> None:
    """Refuses a cohort in which an image class has no training image.

    Raises:
      UserError: naming the class; `path` is the manifest's.
    """
    trained = {entry.label for entry in entries if entry.split == "train"}
    empty = [name for i, name in enumerate(label_names) if i not in trained]
    if empty:
        raise UserError(
            f"No training image of class {few(empty)} in {path}. Add some, correct the labels, "
            f"or change which classes there are."
        )
