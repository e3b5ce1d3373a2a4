"""The sections of an audit: means, guarantee, the three tests, what was not tested."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from gxdistill.pytrees import Metadata
from gxdistill.report import pictures
from gxdistill.report.markup import NONE, Markup, count, share, tag

_ATTACKS = {
    "lira_networks": ("LiRA", "networks from the package"),
    "rmia_networks": ("RMIA", "networks from the package"),
    "lira_images": ("LiRA", "distances to the distilled images"),
    "loss": ("Loss", "networks from the package, no shadows"),
}
_CANARIES = {
    "mislabelled": "Mislabelled",
    "outlier": "Outlier, a negative",
    "single": "Both of these",
    "duplicated": "Duplicated, under four ids",
}
_MEASURES = {"pixels": "Pixels", "structure": "SSIM", "features": "Features"}


Cell = str | list[str]


class Side(NamedTuple):
    """A real patch beside a distilled image.

    Attributes:
      pixels: `[H, W, C]` uint8.
      patient: whose it is.
      distance: in pixels, see `attacks.reconstruction.in_pixels`.
    """

    pixels: np.ndarray
    patient: str
    distance: float


class Pair(NamedTuple):
    """A distilled image, `[H, W, C]` float, with the nearest patch of a member, and of another."""

    distilled: np.ndarray
    member: Side
    other: Side


def _figure(estimate: Mapping[str, float], digits: int = 2) -> list[str]:
    """Writes a figure, with its interval below."""
    ends = f"{estimate['low']:.{digits}f} to {estimate['high']:.{digits}f}"
    return [f"{estimate['value']:.{digits}f}", tag("small", ends)]


def table(caption: str, head: Sequence[str], rows: Sequence[tuple[Cell, Sequence[Cell]]]) -> Markup:
    """A table whose rows are short lists on narrow screens."""
    cells = tag("thead", tag("tr", *(tag("th", text, scope="col") for text in head)))
    lines = []
    for name, values in rows:
        first = tag("th", *([name] if isinstance(name, str) else name), scope="row")
        others = (
            tag("td", *([v] if isinstance(v, str) else v), data_label=title)
            for v, title in zip(values, head[1:], strict=True)
        )
        lines.append(tag("tr", first, *others))
    return tag("table", tag("caption", caption), cells, tag("tbody", *lines), class_="contest")


def guarantee(result: Metadata) -> Markup:
    """Says what is proved, beside what an attack proves against it."""
    proven, outcome = result["proven"], result["tests"]["singling_out"]
    if proven is None:
        what = "No formal guarantee: the package has no ledger. Nothing limits what attacks that "
        what += "were not tried may find."
    elif proven["epsilon"] is None:
        what = f"The ledger proves nothing: its epsilon at delta {proven['delta']:g} is not finite."
    else:
        what = f"Proven, if the sender's ledger is right: {result['guarantee']}."
    facts = (
        ("Proven epsilon", NONE if proven is None else _epsilon(proven["epsilon"])),
        ("Empirical epsilon, of patients", f"at least {outcome['epsilon']:.2f}"),
        ("Ceiling", f"{outcome['ceiling']:.2f}, of a perfect attack on as many patients"),
        ("Ceiling, threshold fixed", f"{outcome['ceiling_of_a_fixed_threshold']:.2f}"),
    )
    real = result["started_from"] == "real"
    warning = "Warning: these distilled images started from real images of patients."
    return tag(
        "aside",
        tag("h2", "Guarantee", id="guarantee"),
        *([tag("p", warning, class_="warning")] if real else []),
        tag("p", what),
        tag("dl", *(part for name, text in facts for part in (tag("dt", name), tag("dd", text)))),
        tag(
            "p",
            f"An empirical epsilon is a lower bound, at delta {outcome['delta']:g}, which holds "
            "with 95% confidence, corrected for the choice among attacks and thresholds: what "
            "attacks that were tried have proved, not what others could. With so few patients it "
            "cannot come above the ceiling.",
            class_="note",
        ),
        class_="alarm" if real or any(v["leaks"] for v in result["verdicts"].values()) else None,
        aria_labelledby="guarantee",
    )


def _epsilon(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"


def means(result: Metadata) -> Iterator[Markup]:
    """Lists what the recipient is taken to have."""
    yield tag("p", "A recipient who attacks is assumed to have:")
    yield tag("ul", *(tag("li", text) for text in result["means"]))


def singling_out(outcome: Metadata, result: Metadata) -> Iterator[Markup]:
    """Shows the attacks on membership, the canaries and the distances."""
    rows: list[tuple[Cell, list[Cell]]] = []
    for name, part in outcome["attacks"].items():
        title, what = _ATTACKS[name]
        cells: list[Cell] = [_figure(part["auc"]), *(_rate(rate) for rate in part["rates"])]
        cells += [f"{part['epsilon']:.2f}", _figure(part["recipe"])]
        rows.append(([title, tag("small", what)], cells))
    bounds = [f"TPR at {100 * r['bound']:g}% FPR" for r in outcome["attacks"]["loss"]["rates"]]
    others = outcome["others"]
    yield tag("h3", "Was this patient a member?")
    yield table(
        f"Of {count(outcome['members'], 'member')} and {count(others, 'other')}, with intervals of "
        f"{100 * outcome['level']:g}%, so that those of all attacks and of the canaries hold "
        f"together with 95%. A false positive rate below 1/{others} cannot be reached but by none. "
        f"The last column attacks each shadow in turn, {count(result['shadows'], 'run')}, with a "
        f"95% interval as if they were independent: the recipe, not this package.",
        ["Attack", "AUC", *bounds, "Epsilon, at least", "AUC, the recipe"],
        rows,
    )
    yield from _planted(outcome["canaries"], result["shadows"])
    yield tag("h3", "Does a distilled image show a patient?")
    near: list[tuple[Cell, list[Cell]]] = [
        (
            _MEASURES[name],
            [
                _figure(part["auc"]),
                f"{part['nearer_to_a_member']} of {part['images']}",
                f"{part['smallest_ratio']:.2f}",
            ],
        )
        for name, part in outcome["reconstruction"].items()
    ]
    yield table(
        "Distilled images beside as many members as others. AUC: whether the image nearest to a "
        "patient is nearer for members. Nearer to a member: half of the images by chance. Smallest "
        "ratio: distance to the nearest member over that to the nearest other, 0 of a copy. Sets "
        "that pass these tests still fall to attacks on membership.",
        ["Distance in", "AUC", "Nearer to a member", "Smallest ratio"],
        near,
    )


def _rate(rate: Metadata) -> list[str]:
    part = rate["share"]
    ends = f"{share(part['low'])} to {share(part['high'])}"
    return [share(part["value"]), tag("small", f"{ends}; FPR {100 * rate['reached']:.1f}%")]


def _planted(outcome: Metadata | None, shadows: int) -> Iterator[Markup]:
    if outcome is None:
        return
    yield tag("h3", "Are canaries betrayed?")
    rows: list[tuple[Cell, list[Cell]]] = [
        (
            title,
            [
                f"{outcome[name]['right']} of {outcome[name]['guesses']}",
                _figure(outcome[name]["share"]),
                f"{outcome[name]['epsilon']:.2f}",
                f"{outcome[name]['ceiling']:.2f}",
            ],
        )
        for name, title in _CANARIES.items()
    ]
    yield table(
        f"Patients that nobody is, planted into {count(shadows, 'shadow')} by fair coins. Those of "
        "the later half are guessed by LiRA on networks, from the earlier half. The bound on "
        "epsilon holds with the same level, for each row alone, and where a patient has four ids "
        "it is of four patients; the ceiling is the bound if all "
        "had been guessed right. It is of the recipe, not of this package.",
        ["Canaries", "Right", "Share", "Epsilon, at least", "Ceiling"],
        rows,
    )


def linkability(outcome: Metadata, _: Metadata) -> Iterator[Markup]:
    """Shows how well records of one patient are linked."""
    yield table(
        "The patches of each patient were parted into two records, by image or into upper and "
        "lower, and linked by their distances to the distilled images. Rank: share of other "
        "patients' records that are less alike than the patient's own; 0.5 by chance. Parts of "
        "one image are alike anyway: what counts is whether members' rank higher.",
        ["Patients", "Mean rank", "AUC"],
        [
            (f"{outcome['members']:,} members", [f"{outcome['rank_of_members']:.2f}", NONE]),
            (f"{outcome['others']:,} others", [f"{outcome['rank_of_others']:.2f}", NONE]),
            ("Members beside others", [NONE, _figure(outcome["auc"])]),
        ],
    )


def inference(outcome: Metadata, _: Metadata) -> Iterator[Markup]:
    """Shows how often the label was told right."""
    rows: list[tuple[Cell, list[Cell]]] = [
        (
            name.capitalize(),
            [
                f"{outcome['counts'][name][0]} of {outcome['counts'][name][1]}",
                _figure(outcome[name]),
            ],
        )
        for name in ("members", "others")
    ]
    rows.append(("Difference", [NONE, _figure(outcome["difference"])]))
    yield table(
        "The label that networks from the package give a patient's relevant patches. To tell it of "
        "anyone is what they are for; a leak is what they tell more often of members.",
        ["Patients", "Right", "Share"],
        rows,
    )


def pairs(drawn: Sequence[Pair]) -> Iterator[Markup]:
    """Draws distilled images beside the nearest real patches."""
    yield tag(
        "p",
        "These are patients: the page stays in the hospital. Each row shows a distilled image, the "
        "patch of a member that is nearest in pixels, and that of another patient. The rows with "
        "the smallest ratio of the two distances come first.",
        class_="warning",
    )
    for pair in drawn:
        low, high = pictures.grey_range(pair.distilled)
        grey = np.clip((pair.distilled - low) / (high - low), 0, 1)
        image = np.rint(255 * grey).astype(np.uint8)
        tiles = [_tile(image, "Distilled", "grey range stretched")]
        for side, what in ((pair.member, "member"), (pair.other, "other patient")):
            tiles.append(_tile(side.pixels, f"Nearest {what}", _told(side)))
        yield tag("div", *tiles, class_="thumbnails trio")


def _told(side: Side) -> str:
    return f"{side.patient}, distance {side.distance:.2f}"


def _tile(pixels: np.ndarray, title: str, text: str) -> Markup:
    shown = pixels if pixels.shape[-1] in (1, 3) else pixels[..., :1]
    picture = pictures.source(pictures.distilled(shown))
    return tag(
        "figure",
        tag("img", alt=f"{title}, {text}.", **picture),
        tag("figcaption", tag("b", title), " ", text),
    )


def not_tested(result: Metadata) -> Iterator[Markup]:
    """Lists what the audit says nothing of."""
    yield tag("ul", *(tag("li", text) for text in result["not_tested"]))
    yield tag("p", "gxdistill is a tool for research. It is not a medical device.")
