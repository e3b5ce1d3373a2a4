"""Reads a cohort from a manifest and its files; quarantines what is broken, with the reason."""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np

from gxdistill import _check
from gxdistill.data.files import images, reading
from gxdistill.data.files.grey import BadEntryError
from gxdistill.data.files.manifest import SKIP, Entry, Quarantined, duplicates, few, read_manifest
from gxdistill.data.files.reading import Facts, Recipe
from gxdistill.data.prepared.reader import Prepared
from gxdistill.data.quarantine import (
    describe_labels,
    in_order,
    is_too_bad,
    stop_if_too_bad,
    suggest_labels,
    suggest_size,
)
from gxdistill.data.splits import EXTERNAL, SPLITS, check_splits, draw_splits
from gxdistill.errors import UserError
from gxdistill.pytrees import Cohort, Metadata
from gxdistill.runtime import environment

Progress = Callable[[int, int], None]  # (images done, images in all)

_MOST_THREADS = 8  # That decode: Pillow does it outside the interpreter's lock.
_T = TypeVar("_T")
_AS_THEY_ARE = Recipe()


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
      notes: what a person should know of how the manifest was understood, a sentence each.
    """

    cohort: Cohort
    quarantine: tuple[Quarantined, ...]
    manifest: Path
    recipe: Recipe
    reading: Metadata
    prepared: Prepared | None = None
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Listing:
    """What a manifest lists, checked as far as headers tell.

    Attributes:
      entries: those that may be read, each with its split.
      bad: by line of the manifest, those that may not.
      manifest: its path.
      recipe: how to read them, with the size of the cohort.
      notes: what a person should know of how it was understood, a sentence each.
    """

    entries: tuple[Entry, ...]
    bad: dict[int, Quarantined]
    manifest: Path
    recipe: Recipe
    notes: tuple[str, ...] = ()


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
    files: Path | None = None,
    splits: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Source:
    """Reads the images that a manifest lists, checks them, and divides them by patient.

    Args:
      root: folder of the data set.
      manifest: path of the CSV in it, see `list_entries`.
      columns: field to another file's column, or to a template of columns (`read_manifest`).
      label_names: names of the image classes, by label; none where they have no class.
      recipe: how files become images.
      test_share: share of patients drawn for the test, where no split is given.
      seed: of the draw.
      max_bad_share: share of entries that may be quarantined before the job stops.
      limit: reads only this many entries, evenly over labels, sites and splits.
      files: folder of the files that the manifest names; None stands for the manifest's own.
      splits: for a value of the split column, "train", "test" or "skip".
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
        files=files,
        splits=splits,
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
    how = reading.account(listing.recipe, facts)
    return Source(cohort, in_order(bad), path, listing.recipe, how, notes=listing.notes)


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
    files: Path | None = None,
    splits: Mapping[str, str] | None = None,
) -> Listing:
    """Reads a manifest and the headers of its images; decodes no pixel of a cohort that will do.

    Of one that will not, all files are decoded, so that the refusal has all that is to be mended.
    The manifest is a CSV, UTF-8 with a header: `image, mask, label, patient, site, split, spacing`,
    the last three and `mask` optional, paths relative to its folder, or to `files`. Images are PNG,
    JPEG, TIFF or DICOM (`images.read_image` tells how more than 8 bits become 8), masks these or
    polygons (`masks.read_mask`). Given splits are kept; without them `splits.draw_splits` draws.

    Args and errors are those of `read_cohort`.
    """
    _check.share(test_share=test_share, max_bad_share=max_bad_share)
    if limit is not None:
        _check.positive(limit=limit)
    path = Path(root) / manifest
    rows = read_manifest(
        path,
        columns=columns or {},
        label_names=label_names,
        root=files,
        splits=splits,
        limit=limit,
        seed=seed,
    )
    entries, bad = rows.entries, rows.bad
    total = len(entries) + len(bad)
    if not recipe.segment and any(entry.mask for entry in entries):
        bad |= {e.line: Quarantined(e.name, "mask missing") for e in entries if not e.mask}
        entries = [entry for entry in entries if entry.mask]
    sized, entries, way_out = _of_one_size(entries, bad, recipe)
    if is_too_bad(bad, total, max_bad_share):
        if entries and sized.is_divided:
            bad |= examine(entries, sized)
        way_out = way_out or suggest_labels(rows.labels, label_names)
        stop_if_too_bad(bad, total, max_bad_share, path, way_out)
    _check_divides(sized)
    if any(entry.split for entry in entries):
        check_splits([entry.split for entry in entries], [entry.patient for entry in entries])
    else:
        labels = np.array([entry.label for entry in entries], np.int32)
        patients, sites = (
            np.array([getattr(entry, field) for entry in entries]) for field in ("patient", "site")
        )
        drawn = draw_splits(labels, patients, sites, test_share=test_share, seed=seed)
        entries = [e._replace(split=str(s)) for e, s in zip(entries, drawn, strict=True)]
    skipped = f"{rows.skipped} rows are skipped: their split is {SKIP!r} or empty"
    notes = (skipped * bool(rows.skipped), describe_labels(rows.labels, label_names))
    return Listing(tuple(entries), bad, path, sized, tuple(filter(None, notes)))


def examine(
    entries: Sequence[Entry],
    recipe: Recipe,
    progress: Progress | None = None,
    look: Callable[[int, reading.Sample], None] = lambda *_: None,
) -> dict[int, Quarantined]:
    """Decodes each entry, keeps no pixel, and returns by line those that cannot be used.

    Args:
      entries: of a manifest.
      recipe: of the cohort, with its size.
      progress: called with the number of images decoded and of all.
      look: called with an entry's place among `entries` and what was read of it, by any thread.
    """
    bad: dict[int, Quarantined] = {}

    def read(slot: int, entry: Entry) -> bytes:
        sample = reading.read_entry(entry, recipe)
        look(slot, sample)
        return sample.digest

    digests = _attempt(read, entries, bad, progress)
    by_entry = {entries[slot]: digest for slot, digest in digests.items()}
    return bad | duplicates(by_entry, "pixels")


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

    used = cohort.select(cohort.splits != EXTERNAL)
    external = {EXTERNAL: count(EXTERNAL)} if len(used.labels) < len(cohort.labels) else {}
    return {
        "manifest": source.manifest.name,
        "images": len(used.labels),
        "patients": len(set(used.patients.tolist())),
        "sites": dict(sorted(Counter(used.sites.tolist()).items())),
        "splits": {split: count(split) for split in SPLITS},
        **external,
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
    threads = min(_MOST_THREADS, environment.usable_cores())
    with images.quiet(), ThreadPoolExecutor(threads) as pool:
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
) -> tuple[Recipe, list[Entry], str]:
    """Returns the recipe with a size, the entries that fit it, and what to do where few do."""
    by_slot = _attempt(lambda _, entry: reading.read_size(entry, recipe.spacing), entries, bad)
    sizes = list(by_slot.values())
    size = recipe.size or _common_size(sizes, recipe)
    fitting = []
    for slot, other in by_slot.items():
        try:
            reading.check_fits(other, size, recipe.fit)
            fitting.append(entries[slot])
        except BadEntryError as error:
            bad[entries[slot].line] = Quarantined(entries[slot].name, str(error))
    way_out = suggest_size(sizes, recipe.size, len(sizes) - len(fitting))
    return dataclasses.replace(recipe, size=size), fitting, way_out


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
    """Returns the entries that could be read, their pixels `[N, H, W, C]`, masks and facts."""
    assert recipe.size
    shape = (len(entries), *(side // recipe.downscale for side in recipe.size))
    pixels = np.empty((*shape, recipe.channels), np.uint8)
    of_mask = np.uint8 if recipe.classes else bool
    masks = np.empty(shape, of_mask) if recipe.segment or entries[0].mask else None

    def decode(slot: int, entry: Entry) -> tuple[bytes, Facts]:
        sample = reading.read_entry(entry, recipe)
        pixels[slot] = sample.image.reshape(pixels.shape[1:])
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


def _check_divides(recipe: Recipe) -> None:
    assert recipe.size
    if not recipe.is_divided:
        common = math.gcd(*recipe.size)
        factors = [str(f) for f in range(1, common + 1) if common % f == 0]
        raise UserError(
            f"`downscale` {recipe.downscale} does not divide images of "
            f"{reading.in_pixels(recipe.size)}. These do: {', '.join(factors)}."
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
