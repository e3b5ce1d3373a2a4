"""`gxdistill check`: reads all files of a cohort, lists what is bad, and does nothing else."""

from collections import Counter
from collections.abc import Container, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from gxdistill import storage
from gxdistill.data import quarantine, source
from gxdistill.data.files import thumbnails
from gxdistill.data.files.manifest import Quarantined, locate
from gxdistill.data.files.reading import Sample
from gxdistill.data.splits import SPLITS
from gxdistill.errors import UserError
from gxdistill.jobs import cohorts, kinds
from gxdistill.jobs.job import Job
from gxdistill.jobs.summary import keeping_quarantine
from gxdistill.report import pictures
from gxdistill.report.markup import Markup, by, count, tag
from gxdistill.report.style import document
from gxdistill.runtime.console import Progress

_SIDE = 240  # Of a thumbnail, in pixels.
_MOST = 200  # Thumbnails of a page: it stays below 15 MB.
_WARNING = (
    "This page shows images of patients and the names of their files. It stays with the cohort."
)

_Counts = dict[str, dict[str, int]]  # By split and class.


def check(job: Job) -> Path:
    """Reads every file of a cohort; writes `quarantine.csv` and the page `check.html`.

    Returns:
      The path of the page.

    Raises:
      UserError: the cohort cannot be used; where its files were read, the page is written.
    """
    kinds.check_grey(job.config, "gxdistill check")
    if not kinds.kind_of(job.config).from_files:
        raise UserError(f"data.kind is {job.config.data.kind!r}: there are no files to check.")
    with keeping_quarantine(job):
        listing = kinds.list_files(job.config, job.log, max_bad_share=1.0)
    clock, patches = Progress(job.log, "reading images"), _Patches(job, listing)
    bad = listing.bad | source.examine(listing.entries, listing.recipe, clock, patches.look)
    left_out = quarantine.in_order(bad)
    quarantine.write_quarantine(job.workdir / "quarantine.csv", left_out)
    counts = patches.total(bad)
    fault = _fault(job, listing, bad, counts)
    path = job.workdir / "check.html"
    storage.write_text(path, _page(job, listing, left_out, counts, fault))
    job.log(f"check: {path}; {count(len(left_out), 'entry', 'entries')} in quarantine.csv")
    if fault:
        raise UserError(f"this cohort cannot be used. {fault}")
    return path


class _Patches:
    """Counts the patches of each class, one image after another, so that no cohort is held."""

    def __init__(self, job: Job, listing: source.Listing):
        names = tuple(job.config.data.label_names)
        has_masks = any(entry.mask for entry in listing.entries)
        self._class_names = ("irrelevant", *names) if has_masks else names
        self._job, self._listing = job, listing
        self._of_slot: dict[int, np.ndarray] = {}

    def look(self, slot: int, sample: Sample) -> None:
        """Counts those of one image; of settings that do not fit, none."""
        entry = self._listing.entries[slot]
        with suppress(UserError):
            table = cohorts.of_one_image(
                self._job.config,
                sample.image,
                sample.mask,
                label=entry.label,
                class_names=self._class_names,
            )
            self._of_slot[slot] = np.bincount(table.label, minlength=len(self._class_names))

    def total(self, bad: Container[int]) -> _Counts:
        """Adds up those of images whose line is not bad."""
        total = {split: np.zeros(len(self._class_names), int) for split in SPLITS}
        for slot, counted in self._of_slot.items():
            entry = self._listing.entries[slot]
            if entry.line not in bad and entry.split in SPLITS:
                total[entry.split] += counted
        return {
            split: dict(zip(self._class_names, of_split.tolist(), strict=True))
            for split, of_split in total.items()
        }


def _fault(
    job: Job,
    listing: source.Listing,
    bad: dict[int, Quarantined],
    counts: _Counts,
) -> str | None:
    """Says why a cohort cannot be used; None of one that can."""
    total = len(listing.entries) + len(listing.bad)
    sound = [entry for entry in listing.entries if entry.line not in bad]
    try:
        with keeping_quarantine(job):
            quarantine.stop_if_too_bad(bad, total, job.config.data.max_bad_share, listing.manifest)
        source.check_classes(sound, tuple(job.config.data.label_names), listing.manifest)
        assert listing.recipe.size
        height, width = (side // listing.recipe.downscale for side in listing.recipe.size)
        cohorts.check_patch_fits(job.config, height, width)
    except UserError as error:
        return str(error)
    if "test" not in {entry.split for entry in sound}:
        return "No image is for the test split."
    try:
        for split in SPLITS:
            cohorts.check_patches(job.config, split, counts[split])
    except UserError as error:
        return str(error)
    return None


def _page(
    job: Job,
    listing: source.Listing,
    left_out: Sequence[Quarantined],
    counts: _Counts,
    fault: str | None,
) -> str:
    total = len(listing.entries) + len(listing.bad)
    title = f"{job.config.name}: {len(left_out):,} of {count(total, 'image')} cannot be used"
    verdict = fault or "The cohort can be used; what is listed here would be left out."
    header = tag(
        "header",
        tag("p", "gxdistill check", class_="kicker"),
        tag("h1", title),
        tag("p", verdict, class_="warning" if fault else "verdict"),
        *(tag("p", f"{note[0].upper()}{note[1:]}.") for note in listing.notes),
        tag("p", _WARNING, class_="warning"),
    )
    main = tag(
        "main",
        tag("section", tag("h2", "Read"), *_counts(job, listing, counts)),
        tag("section", tag("h2", "Reasons"), *_reasons(left_out)),
        tag("section", tag("h2", "Quarantined"), *quarantined(job, listing.manifest, left_out)),
    )
    return document(title, header, main)


def _counts(job: Job, listing: source.Listing, counts: _Counts) -> Iterator[Markup]:
    assert listing.recipe.size
    yield tag("p", f"Images are {by(*listing.recipe.size)} pixels, as their headers say.")
    labels = [(entry.split, entry.label) for entry in listing.entries]
    images = {
        split: {
            name: labels.count((split, i)) for i, name in enumerate(job.config.data.label_names)
        }
        for split in SPLITS
    }
    yield _table("Images by header", images)
    yield _table("Patches of sound images", counts)


def _table(what: str, counts: _Counts) -> Markup:
    head = tag("tr", *(tag("th", t, scope="col") for t in (what, *SPLITS)))
    rows = [
        tag(
            "tr", tag("th", name, scope="row"), *(tag("td", f"{counts[s][name]:,}") for s in SPLITS)
        )
        for name in counts[SPLITS[0]]
    ]
    return tag("table", tag("thead", head), tag("tbody", *rows), class_="facts")


def _reasons(left_out: Sequence[Quarantined]) -> Iterator[Markup]:
    if not left_out:
        yield tag("p", "No entry was quarantined.")
        return
    rows = [
        tag("tr", tag("th", why, scope="row"), tag("td", f"{number:,}"))
        for why, number in Counter(bad.reason for bad in left_out).most_common(50)
    ]
    yield tag("table", tag("tbody", *rows), class_="facts")


def quarantined(job: Job, manifest: Path, left_out: Sequence[Quarantined]) -> Iterator[Markup]:
    """Shows what was left out: a thumbnail where the image can be decoded, its name, the reason."""
    root = kinds.files_of(job.config) or manifest.parent
    figures = [_figure(root, bad) for bad in left_out[:_MOST]]
    yield tag("div", *figures, class_="thumbnails")
    if len(left_out) > _MOST:
        yield tag("p", f"{len(left_out) - _MOST:,} more are in quarantine.csv.", class_="note")


def _figure(root: Path, bad: Quarantined) -> Markup:
    try:
        picture = thumbnails.thumbnail(locate(root, bad.name), _SIDE)
    except UserError:  # The name leads nowhere, or DICOM cannot be read here.
        picture = None
    shown = (
        tag("p", "no picture", class_="absent")
        if picture is None
        else tag("img", alt="", **pictures.source(picture))
    )
    return tag("figure", shown, tag("figcaption", tag("strong", bad.name), f": {bad.reason}."))
