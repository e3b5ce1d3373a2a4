"""Reads a cohort from a manifest and its files; quarantines what is broken, with the reason."""

import csv
import dataclasses
import functools
import hashlib
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
from gxdistill.data import grey, images
from gxdistill.data.grey import BadEntryError
from gxdistill.data.manifest import Entry, Quarantined, duplicates, few, read_manifest
from gxdistill.data.splits import SPLITS, check_splits, draw_splits
from gxdistill.errors import UserError
from gxdistill.pytrees import Cohort, Metadata

Progress = Callable[[int, int], None]  # (images done, images in all)

_THREADS = min(8, os.cpu_count() or 1)  # Pillow decodes outside the interpreter's lock.
_T = TypeVar("_T")


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
      read_size: height and width of the image files in pixels.
      downscale: factor by which they were shrunk.
    """

    cohort: Cohort
    quarantine: tuple[Quarantined, ...]
    manifest: Path
    read_size: tuple[int, int]
    downscale: int


def read_cohort(
    root: Path,
    manifest: str,
    *,
    columns: Mapping[str, str] | None = None,
    label_names: Sequence[str] = ("non-gastritis", "gastritis"),
    image_size: tuple[int, int] | None = None,
    downscale: int = 1,
    test_share: float = 0.25,
    seed: int = 0,
    max_bad_share: float = 0.05,
    limit: int | None = None,
    progress: Progress | None = None,
) -> Source:
    """Reads the images that a manifest lists, checks them, and divides them by patient.

    The manifest is a CSV, UTF-8 with a header: `image, mask, label, patient, site, split`, the
    last two and `mask` optional, paths relative to its folder. Images are PNG, JPEG, TIFF or DICOM
    (`images.read_image` tells how more than 8 bits become 8). Given splits are kept; without them
    `splits.draw_splits` draws.

    Args:
      root: folder of the data set.
      manifest: path of the CSV in it.
      columns: field to another file's column, or to a template of columns (`read_manifest`).
      label_names: names of the image classes, by label.
      image_size: height and width of the files in pixels; None takes the most common size.
      downscale: averages blocks of this side; of masks, the majority.
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
    _check.share(test_share=test_share, max_bad_share=max_bad_share)
    _check.positive(downscale=downscale, **({} if limit is None else {"limit": limit}))
    path = Path(root) / manifest
    entries, bad = read_manifest(
        path, columns=columns or {}, label_names=label_names, limit=limit, seed=seed
    )
    check = functools.partial(_stop_if_too_bad, bad, len(entries) + len(bad), max_bad_share, path)
    check()
    given = any(entry.split for entry in entries)
    if given:
        check_splits([entry.split for entry in entries], [entry.patient for entry in entries])

    size, entries = _of_one_size(entries, bad, image_size)
    check()
    _check_divides(downscale, size)
    entries, pixels, masks = _decode(entries, bad, size, downscale, progress)
    check()
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
    if not given:
        splits = draw_splits(
            cohort.labels, cohort.patients, cohort.sites, test_share=test_share, seed=seed
        )
        cohort = dataclasses.replace(cohort, splits=splits)
    _check_classes(cohort, path)
    return Source(cohort, _in_order(bad), path, size, downscale)


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
    names = _label_names(cohort)

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
        "read_size": list(source.read_size),
        "downscale": source.downscale,
        "quarantine": {
            "count": len(source.quarantine),
            "reasons": dict(Counter(entry.reason for entry in source.quarantine).most_common()),
            "entries": [entry._asdict() for entry in source.quarantine],
        },
    }


def _label_names(cohort: Cohort) -> tuple[str, ...]:
    return cohort.class_names[cohort.masks is not None :]


def _in_order(bad: Mapping[int, Quarantined]) -> tuple[Quarantined, ...]:
    return tuple(bad[line] for line in sorted(bad))


def _stop_if_too_bad(bad: Mapping[int, Quarantined], total: int, share: float, path: Path) -> None:
    if len(bad) <= share * total and len(bad) < total:
        return
    quarantine = _in_order(bad)
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
    entries: Sequence[Entry], bad: dict[int, Quarantined], wanted: tuple[int, int] | None
) -> tuple[tuple[int, int], list[Entry]]:
    """Returns the size of the cohort in pixels and the entries that have it."""
    sizes = _attempt(lambda _, entry: images.read_size(entry.image), entries, bad)
    counts = Counter(sizes.values())
    size = wanted or max(counts, key=lambda size: (counts[size], size), default=(0, 0))
    for slot, other in sizes.items():
        if other != size:
            reason = f"image is {_pixels(other)}, the cohort {_pixels(size)}"
            bad[entries[slot].line] = Quarantined(entries[slot].name, reason)
    return size, [entries[slot] for slot in sizes if sizes[slot] == size]


def _decode(
    entries: Sequence[Entry],
    bad: dict[int, Quarantined],
    size: tuple[int, int],
    downscale: int,
    progress: Progress | None,
) -> tuple[list[Entry], np.ndarray, np.ndarray | None]:
    """Returns the entries that could be decoded, their pixels `[N, H, W, 1]` and masks."""
    shape = (len(entries), size[0] // downscale, size[1] // downscale)
    pixels = np.empty((*shape, 1), np.uint8)
    masks = np.empty(shape, bool) if entries[0].mask else None

    def decode(slot: int, entry: Entry) -> bytes:
        image = images.read_image(entry.image)
        if image.shape != size:
            raise BadEntryError("header and pixels disagree on the size")
        if image.min() == image.max():
            raise BadEntryError("constant image: all pixels are equal")
        pixels[slot, :, :, 0] = grey.shrink(image, downscale)
        if masks is not None and entry.mask:
            masks[slot] = _mask(entry.mask, size, downscale)
        return hashlib.sha256(image.tobytes()).digest()

    digests = _attempt(decode, entries, bad, progress)
    twice = duplicates({entries[slot]: digest for slot, digest in digests.items()}, "pixels")
    bad |= twice
    kept = [slot for slot in digests if entries[slot].line not in twice]
    # Closes the gaps in place: a copy would need the memory of the cohort once more.
    for new, old in enumerate(kept):
        pixels[new] = pixels[old]
        if masks is not None:
            masks[new] = masks[old]
    n = len(kept)
    return [entries[slot] for slot in kept], pixels[:n], None if masks is None else masks[:n]


def _mask(path: Path, size: tuple[int, int], downscale: int) -> np.ndarray:
    try:
        mask = images.read_mask(path)
    except BadEntryError as error:
        raise BadEntryError(f"mask: {error}") from error
    if mask.shape != size:
        raise BadEntryError(f"mask is {_pixels(mask.shape)}, its image {_pixels(size)}")
    mask = grey.shrink(mask, downscale)
    if not mask.any():
        raise BadEntryError("mask empty: no pixel of the organ")
    return mask


def _pixels(size: tuple[int, ...]) -> str:
    return f"{size[0]}x{size[1]} px"


def _check_divides(downscale: int, size: tuple[int, int]) -> None:
    common = math.gcd(*size)
    if common % downscale:
        factors = [str(f) for f in range(1, common + 1) if common % f == 0]
        raise UserError(
            f"`downscale` {downscale} does not divide images of {_pixels(size)}. "
            f"These do: {', '.join(factors)}."
        )


def _check_classes(cohort: Cohort, path: Path) -> None:
    trained = set(cohort.labels[cohort.splits == "train"].tolist())
    empty = [name for i, name in enumerate(_label_names(cohort)) if i not in trained]
    if empty:
        raise UserError(
            f"No training image of class {few(empty)} in {path}. Add some, correct the labels, "
            f"or change which classes there are."
        )
