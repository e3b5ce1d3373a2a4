"""The page of a segmentation: figures, and the test images that were segmented worst, first."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gxdistill import storage
from gxdistill.errors import UserError
from gxdistill.package.segmenter import SegmenterManifest, load_segmenter
from gxdistill.pytrees import Metadata
from gxdistill.report import contours, figures, pictures
from gxdistill.report.findings import read_history
from gxdistill.report.markup import Markup, count, join, tag
from gxdistill.report.style import document

_COLUMNS = {
    "dice": "Dice",
    "jaccard": "Jaccard",
    "found": "Found",
    "hd95": "HD95",
    "asd": "ASD",
    "surface_dice": "Surface Dice",
}
_REFERENCES = (
    "Dice and Jaccard: overlap of prediction and truth. Found: share of the true pixels. HD95: "
    "95th percentile of the distances between the two boundaries, and ASD their mean, both in "
    "pixels as they are read. Surface Dice: share of both boundaries within {tolerance:g} pixels "
    "of the other. A class that neither shows counts 1 at distance 0; one that only one shows "
    "counts 0 at the length of the diagonal. Means over test {units}, with their standard "
    "deviation."
)


class Findings(NamedTuple):
    """What a page tells of.

    Attributes:
      figures: what `segmentation.json` has.
      cases: what `segmentations.npz` has, by name.
      history: lines of `history.jsonl`.
      manifest: of the segmenter; None where it lies elsewhere.
      units: what was measured, "images" or "patients".
    """

    figures: Metadata
    cases: dict[str, np.ndarray]
    history: list[Metadata]
    manifest: SegmenterManifest | None
    units: str


def write(workdir: Path) -> Path:
    """Writes `workdir/report.html`: one file that asks nothing of any network and runs no script.

    Args:
      workdir: what `gxdistill segment evaluate` wrote into.

    Returns:
      The path of the page.

    Raises:
      UserError: nothing was evaluated there, a file cannot be read, or matplotlib is not installed.
    """
    path = workdir / "segmentation.json"
    if not path.exists():
        raise UserError(f"{path} is missing. Run `gxdistill segment evaluate` first.")
    measured, package = storage.read_json(path), workdir / "segmenter.gxs"
    with np.load(workdir / "segmentations.npz", allow_pickle=False) as file:
        cases = dict(file)
    findings = Findings(
        measured,
        cases,
        read_history(workdir / "history.jsonl"),
        load_segmenter(package).manifest if package.exists() else None,
        {"image": "images", "patient": "patients"}[measured["measure"]],
    )
    page = workdir / "report.html"
    storage.write_text(page, _page(findings))
    return page


def _page(findings: Findings) -> str:
    sections = (
        ("results", "Results", results(findings)),
        ("sites", "Sites", sites(findings)),
        ("images", "Images, worst first", shown(findings)),
        ("all", f"All {findings.units}", listed(findings)),
        ("learning", "Learning curve", learning(findings)),
        ("making", "How it was made", making(findings)),
    )
    name = findings.manifest.name if findings.manifest else "a segmenter"
    mean = findings.figures["mean"]
    title = f"{_classes(findings)} segmented with a Dice of {mean['dice']['mean']:.3f}"
    verdict = tag(
        "p",
        f"Of {count(findings.figures['images'], 'test image')} of "
        f"{count(findings.figures['patients'], 'patient')}, "
        f"{findings.figures['accuracy']['mean']:.1%} of the pixels were told right. A boundary "
        f"lies {mean['asd']['mean']:.2f} pixels from the true one on average.",
        class_="verdict",
    )
    links = (join(tag("a", text, href=f"#{key}"), " ") for key, text, _ in sections)
    header = tag(
        "header",
        tag("p", f"gxdistill segmentation: {name}", class_="kicker"),
        tag("h1", title),
        verdict,
        tag("nav", *links, aria_label="Sections"),
    )
    body = (
        tag("section", tag("h2", text, id=key), *content, aria_labelledby=key)
        for key, text, content in sections
    )
    return document(f"{name}: {title}", header, tag("main", *body))


def _classes(findings: Findings) -> str:
    *first, last = findings.figures["class_names"][1:]
    names = f"{', '.join(first)} and {last}" if first else last
    return names[:1].upper() + names[1:]


def results(findings: Findings) -> Iterator[Markup]:
    """Sets the figures of each class beside each other."""
    told = findings.figures
    rows = dict(told["classes"])
    if len(rows) > 1:
        rows["mean"] = told["mean"]
    text = _REFERENCES.format(tolerance=told["tolerance"], units=findings.units)
    yield _table("Class", rows, text)


def sites(findings: Findings) -> Iterator[Markup]:
    """Sets the figures of each site beside each other."""
    told = findings.figures["sites"]
    if len(told) < 2:
        yield tag("p", "One site, or none is stated.", class_="absent")
        return
    rows = {
        f"{site} ({count(part['accuracy']['n'], findings.units[:-1])})": part["mean"]
        for site, part in told.items()
    }
    yield _table("Site", rows, "Means over the classes but the background.")


def _table(first: str, rows: Metadata, caption: str) -> Markup:
    heads = (tag("th", label, scope="col") for label in _COLUMNS.values())
    body = (
        tag(
            "tr",
            tag("th", name, scope="row"),
            *(_cell(row[key], label) for key, label in _COLUMNS.items()),
        )
        for name, row in rows.items()
    )
    return tag(
        "table",
        tag("caption", caption),
        tag("thead", tag("tr", tag("th", first, scope="col"), *heads)),
        tag("tbody", *body),
        class_="contest",
    )


def _cell(part: Metadata, label: str) -> Markup:
    deviation = tag("small", f"± {part['std']:.3f}")
    return tag("td", tag("span", f"{part['mean']:.3f}"), deviation, data_label=label)


def shown(findings: Findings) -> Iterator[Markup]:
    """Shows the cases of the lowest Dice: image, truth, prediction, contours, errors."""
    legend = (
        *((name, contours.CLASSES[k % len(contours.CLASSES)]) for k, name in _foreground(findings)),
        ("true contour", contours.TRUTH),
        ("predicted contour", contours.PREDICTED),
        ("missed", contours.MISSED),
        ("wrongly taken for a class", contours.EXTRA),
    )
    yield tag("p", *(part for text, colour in legend for part in _key(text, colour)))
    told, cases = findings.figures["cases"], findings.cases
    side = contours.DETAIL
    if max(cases["images"].shape[1:3]) > side:
        yield tag("p", f"Of each image the square of {side} pixels with the most errors is shown.")
    for i, case in enumerate(told[: len(cases["images"])]):
        name = str(cases["names"][i])
        yield tag("h3", f"{name}: Dice {case['dice']:.3f}")
        yield _views(name, *(cases[key][i] for key in ("images", "truth", "predicted")))


def _foreground(findings: Findings) -> Iterator[tuple[int, str]]:
    yield from enumerate(findings.figures["class_names"][1:])


def _key(text: str, colour: contours.Colour) -> tuple[Markup, str]:
    style = f"background: rgb{colour}; border: 1px solid #888"
    return tag("span", class_="key", style=style), f"{text}   "


def _views(name: str, image: np.ndarray, truth: np.ndarray, predicted: np.ndarray) -> Markup:
    square = contours.worst_square(truth != predicted)
    parts = (part[square] for part in (contours.to_colours(image), truth, predicted))
    image, truth, predicted = map(contours.enlarge, parts)
    both = [(truth, contours.TRUTH), (predicted, contours.PREDICTED)]
    views = {
        "image": image,
        "truth": contours.painted(image, truth),
        "prediction": contours.painted(image, predicted),
        "contours": contours.outlined(image, both),
        "errors": contours.errors(image, truth, predicted),
    }
    return tag(
        "div",
        *(
            tag(
                "figure",
                tag(
                    "img",
                    alt=f"{name}: {what}.",
                    **pictures.source(contours.picture(pixels)),
                ),
                tag("figcaption", what),
            )
            for what, pixels in views.items()
        ),
        class_="views",
    )


def listed(findings: Findings) -> Iterator[Markup]:
    """Lists all cases with their Dice, worst first."""
    rows = (
        tag("tr", tag("th", case["name"], scope="row"), tag("td", f"{case['dice']:.3f}"))
        for case in findings.figures["cases"]
    )
    head = tag("tr", tag("th", "Name", scope="col"), tag("th", "Dice", scope="col"))
    table = tag("table", tag("thead", head), tag("tbody", *rows), class_="facts")
    yield tag("details", tag("summary", f"{len(findings.figures['cases'])}, worst first"), table)


def learning(findings: Findings) -> Iterator[Markup]:
    """Draws the loss over the steps."""
    drawn = figures.curve(findings.history, "loss", "loss", axis="step")
    if drawn is None:
        yield tag("p", "history.jsonl is missing or too short for a curve.", class_="absent")
        return
    text = "Half of 1 minus soft Dice and half cross-entropy, on crops of training images."
    yield tag("figure", drawn, tag("figcaption", text))


def making(findings: Findings) -> Iterator[Markup]:
    """Tells what was trained, on what, and how."""
    about = findings.manifest
    if about is None:
        yield tag("p", "The segmenter lies elsewhere.", class_="absent")
        return
    patch, options = about.patch, about.network.options
    how = ", ".join(f"{name} {value}" for name, value in options.items())
    facts = {
        "Network": f"{about.network.name}: {how or 'as it is by default'}",
        "Images": f"{patch.image_height} x {patch.image_width} pixels, {patch.channels} channels",
        "Tiles": f"{patch.size} pixels, {patch.size - patch.stride} of them shared",
        "Training": ", ".join(f"{name} {value}" for name, value in about.training.items()),
        "Purpose": about.purpose,
        "Licence": about.licence,
        "Privacy": about.privacy,
    }
    if about.cohort:
        trained = about.cohort.splits.train
        facts["Training images"] = f"{trained.images} of {count(trained.patients, 'patient')}"
    yield tag(
        "dl",
        *(
            tag(kind, text)
            for pair in facts.items()
            for kind, text in zip(("dt", "dd"), pair, strict=True)
        ),
    )
