"""A page on which a user sees what the reading and the area rule make of a few images."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import ml_collections
import numpy as np

from gxdistill import patching, storage
from gxdistill.data.files import images, reading
from gxdistill.data.files.grey import BadEntryError
from gxdistill.data.files.manifest import Quarantined
from gxdistill.data.quarantine import in_order, write_quarantine
from gxdistill.jobs import cohorts, kinds
from gxdistill.jobs.job import Job
from gxdistill.jobs.summary import keeping_quarantine
from gxdistill.pytrees import PatchTable
from gxdistill.report import pictures
from gxdistill.report.markup import Markup, by, count, join, tag
from gxdistill.report.style import document
from gxdistill.tasks.cohort import checking

if TYPE_CHECKING:
    from PIL import Image

_IMAGES = 6
_SIDE = 720  # Of a drawing, in pixels.
_MARK = 0.4  # Side of a patch's mark, as a share of the stride.
_DROPPED, _ORGAN = "#808080", "#f0e442"
# Okabe & Ito, https://jfly.uni-koeln.de/color/: told apart with any common colour blindness.
_COLOURS = ("#56b4e9", "#009e73", "#d55e00", "#cc79a7", "#e69f00")
_WARNING = (
    "This page shows images of patients and the names of their files. It stays with the cohort."
)


class _Shown(NamedTuple):
    """An image as the job sees it: `[H, W]` uint8, its mask or None, the index of its label."""

    name: str
    label: int
    image: np.ndarray
    mask: np.ndarray | None
    note: str


def write(job: Job) -> Path:
    """Writes `preview.html`: grid, mask and patch classes over a few images of each label.

    Returns:
      The path of the page.

    Raises:
      UserError: the cohort cannot be read, or no patch fits its images.
    """
    kinds.check_grey(job.config, "gxdistill preview")
    labels, shown, refused = _look(job)
    if refused:
        write_quarantine(job.workdir / "quarantine.csv", refused)
    masks = any(image.mask is not None for image in shown)
    names = (*(["irrelevant"] if masks else []), *labels)
    colours = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(names)}
    body = [_figure(job, image, colours, labels) for image in shown]
    path = job.workdir / "preview.html"
    storage.write_text(path, _page(job, colours, masks, body, _refusals(job, refused)))
    return path


def _refusals(job: Job, refused: Sequence[Quarantined]) -> list[Markup]:
    """Shows a few entries that cannot be used, of each reason first; quarantine.csv has all."""
    order = sorted(range(len(refused)), key=lambda i: _rank(refused, i))
    few = [refused[i] for i in order[:_IMAGES]]
    if not few:
        return []
    manifest = Path(job.config.data.path) / job.config.data.manifest
    said = f"{count(len(refused), 'entry', 'entries')} cannot be used, as quarantine.csv lists"
    shown = checking.quarantined(job, manifest, few)
    return [tag("section", tag("h2", "Quarantined"), tag("p", f"{said}:"), *shown)]


def _rank(refused: Sequence[Quarantined], i: int) -> int:
    """How many before it have its reason."""
    return sum(other.reason == refused[i].reason for other in refused[:i][-_IMAGES:])


def _look(job: Job) -> tuple[tuple[str, ...], list[_Shown], tuple[Quarantined, ...]]:
    """Returns the names of the labels, a few images, and all that are known to be of no use."""
    if not kinds.kind_of(job.config).from_files:
        cohort = job.cohorts.source.cohort
        shown = [
            _Shown(
                str(cohort.names[i]),
                int(cohort.labels[i]),
                np.asarray(cohort.images[i]).max(axis=-1),
                None if cohort.masks is None else np.asarray(cohort.masks[i]),
                "",
            )
            for i in _spread([(label,) for label in cohort.labels])
        ]
        return cohort.label_names, shown, ()
    with keeping_quarantine(job):
        listing = kinds.list_files(job.config, job.log, max_bad_share=1.0)
    read, bad = [], dict(listing.bad)
    with images.quiet():
        for i in _spread([(entry.label, entry.site) for entry in listing.entries]):
            entry = listing.entries[i]
            try:
                sample = reading.read_entry(entry, listing.recipe)
            except BadEntryError as error:
                bad[entry.line] = Quarantined(entry.name, str(error))
                continue
            facts = sample.facts
            note = f"; {facts.bits} bits, {facts.window}"
            if facts.texts:
                done = {"mask": "masked", "keep": "kept"}[listing.recipe.text]
                note += f"; {count(facts.texts, 'line')} of burned-in text {done}"
            read.append(_Shown(entry.name, entry.label, sample.image, sample.mask, note))
    return tuple(job.config.data.label_names), read, in_order(bad)


def _spread(keys: Sequence[tuple]) -> list[int]:
    """Chooses a few places, evenly over the keys in order."""
    order = sorted(range(len(keys)), key=keys.__getitem__)
    chosen = min(_IMAGES, len(order))
    return [order[(2 * i + 1) * len(order) // (2 * chosen)] for i in range(chosen)]


def _patches(job: Job, shown: _Shown, labels: Sequence[str]) -> tuple[PatchTable, np.ndarray]:
    """Returns the patches of an image that the area rule keeps, and all corners."""
    patch = job.config.patch
    table = cohorts.of_one_image(  # Refuses what no grid fits.
        job.config, shown.image, shown.mask, label=shown.label, class_names=labels
    )
    return table, patching.patch_corners(
        shown.image.shape, patch.size, patch.stride, border=patch.border
    )


def _figure(job: Job, shown: _Shown, colours: dict[str, str], labels: Sequence[str]) -> Markup:
    table, corners = _patches(job, shown, labels)
    names = list(colours)
    classes = dict(
        zip(
            zip(table.row.tolist(), table.col.tolist(), strict=True),
            table.label.tolist(),
            strict=True,
        )
    )
    picture = _draw(
        shown,
        job.config.patch,
        [(r, c, classes.get((r, c))) for r, c in corners.tolist()],
        list(colours.values()),
    )
    counted = [
        f"{n:,} {name}"
        for n, name in zip(np.bincount(table.label, minlength=len(names)), names, strict=True)
    ]
    counted.append(f"{len(corners) - len(classes):,} dropped")
    drawn = tag("img", alt=f"Patches of {shown.name}", **pictures.source(picture))
    caption = f"{shown.name}: {labels[shown.label]}; patches: {', '.join(counted)}{shown.note}."
    return tag("figure", drawn, tag("figcaption", caption))


def _draw(
    shown: _Shown,
    patch: ml_collections.ConfigDict,
    places: Sequence[tuple[int, int, int | None]],
    colours: Sequence[str],
) -> "Image.Image":
    """Draws the mask's outline, a mark at the centre of each patch, and one patch of each class.

    Args:
      shown: the image.
      patch: size and stride in pixels.
      places: row, column and class of each patch; None where it is dropped.
      colours: by class.
    """
    from PIL import Image, ImageChops, ImageDraw, ImageFilter

    scale = _SIDE / max(shown.image.shape)
    side = (round(scale * shown.image.shape[1]), round(scale * shown.image.shape[0]))
    picture = Image.fromarray(shown.image).resize(side).convert("RGB")
    if shown.mask is not None:
        mask = Image.fromarray(shown.mask * np.uint8(255)).resize(side)
        outline = ImageChops.subtract(mask, mask.filter(ImageFilter.MinFilter(5)))
        picture.paste(_ORGAN, mask=outline)
    pen = ImageDraw.Draw(picture)

    def square(row: int, col: int, length: float) -> tuple[float, ...]:
        y, x = scale * (row + patch.size / 2), scale * (col + patch.size / 2)
        half = max(1.0, scale * length / 2)
        return x - half, y - half, x + half, y + half

    for row, col, kind in places:
        mark = square(row, col, _MARK * patch.stride)
        if kind is None:
            pen.rectangle(mark, outline=_DROPPED, width=2)
        else:
            pen.rectangle(mark, fill=colours[kind])
    for kind, colour in enumerate(colours):
        if of_kind := [(row, col) for row, col, other in places if other == kind]:
            pen.rectangle(square(*of_kind[len(of_kind) // 2], patch.size), outline=colour, width=3)
    return picture


def _page(
    job: Job,
    colours: dict[str, str],
    masks: bool,
    body: Sequence[Markup],
    refusals: Sequence[Markup],
) -> str:
    patch = job.config.patch
    title = f"{job.config.name}: patches of {by(patch.size, patch.size)} pixels"
    rule = (
        f"Every square stands at the centre of a patch, one every {patch.stride} pixels; of each "
        f"class one patch is drawn whole. "
    )
    if masks:
        rule += (
            f"The organ is outlined. A patch is irrelevant if at most {patch.irrelevant_below:g} "
            f"of it is organ, takes the label of its image from {patch.inside_above:g}, and is "
            f"dropped in between: these squares are hollow."
        )
    key = [tag("strong", name, style=f"color: {colour}") for name, colour in colours.items()]
    header = tag(
        "header",
        tag("p", "gxdistill preview", class_="kicker"),
        tag("h1", title),
        tag("p", rule),
        tag("p", *(join(entry, " ") for entry in key)),
        tag("p", _WARNING, class_="warning"),
    )
    main = tag("main", tag("div", *body, class_="pair"), *refusals)
    return document(title, header, main)
