"""The page of a simulated federation: Dice beside what was promised, to whom, and what was sent."""

from collections.abc import Iterator
from pathlib import Path

from gxdistill import storage
from gxdistill.errors import UserError
from gxdistill.package.guarantees import rounded_up
from gxdistill.pytrees import Metadata
from gxdistill.report.markup import NONE, Markup, count, join, size, tag
from gxdistill.report.style import document

_COLUMNS = {"dice": "Dice", "jaccard": "Jaccard", "accuracy": "Pixels right"}


def write(workdir: Path) -> Path:
    """Writes `workdir/report.html`: one file that asks nothing of any network and runs no script.

    Args:
      workdir: what `gxdistill federate simulate` wrote into.

    Returns:
      The path of the page.

    Raises:
      UserError: nothing was simulated there, or a file cannot be read.
    """
    path = workdir / "federation.json"
    if not path.exists():
        raise UserError(f"{path} is missing. Run `gxdistill federate simulate` first.")
    page = workdir / "report.html"
    storage.write_text(page, _page(storage.read_json(path)))
    return page


def _page(result: Metadata) -> str:
    rows = result["contenders"]
    sites = count(len(result["sites"]), "site")
    title = f"{sites} segment together with a Dice of {rows['federated']['dice']:.3f}"
    sections = (
        ("results", "Results", results(rows)),
        ("promises", "What is promised, and what is not", promises(rows)),
        ("by-site", "Test patients of each site", by_site(rows)),
        ("sites", "Sites", counts(result["sites"])),
    )
    links = (join(tag("a", text, href=f"#{key}"), " ") for key, text, _ in sections)
    header = tag(
        "header",
        tag("p", "gxdistill federation, simulated on one machine", class_="kicker"),
        tag("h1", title),
        tag("p", _verdict(rows), class_="verdict"),
        tag("nav", *links, aria_label="Sections"),
    )
    parts = (
        tag("section", tag("h2", text, id=key), *content, aria_labelledby=key)
        for key, text, content in sections
    )
    return document(title, header, tag("main", *parts))


def _verdict(rows: Metadata) -> str:
    dice = rows["federated"]["dice"]
    alone = [row["dice"] for name, row in rows.items() if name.startswith("alone/")]
    parts = []
    if "central" in rows:
        parts.append(f"All patients in one place give {rows['central']['dice']:.3f}")
    if alone:
        parts.append(f"a site alone {min(alone):.3f} to {max(alone):.3f}")
    said = "; ".join(parts)
    return f"{said}; together, without a patient leaving, {dice:.3f}." if said else ""


def _table(heads: list[str], rows: Iterator[Markup], caption: str) -> Markup:
    head = tag("tr", *(tag("th", text, scope="col") for text in heads))
    return tag(
        "table",
        tag("caption", caption),
        tag("thead", head),
        tag("tbody", *rows),
        class_="contest",
    )


def _row(title: str, cells: dict[str, str]) -> Markup:
    values = (tag("td", value, data_label=label) for label, value in cells.items())
    return tag("tr", tag("th", title, scope="row"), *values)


def results(rows: Metadata) -> Iterator[Markup]:
    """Sets the trainings side by side, each with its unit, epsilon and delta."""

    def cells(row: Metadata) -> dict[str, str]:
        spent = NONE
        if row["unit"]:
            spent = "above 100" if row["epsilon"] is None else rounded_up(row["epsilon"])
        return {
            **{label: f"{row[name]:.3f}" for name, label in _COLUMNS.items()},
            "Unit": row["unit"] or NONE,
            "Epsilon": spent,
            "Delta": f"{row['delta']:g}" if row["unit"] else NONE,
            "A site sends a round": size(row["bytes_a_round"]) if row["bytes_a_round"] else NONE,
        }

    told = {name: cells(row) for name, row in rows.items()}
    heads = ["Training", *next(iter(told.values()))]
    yield _table(
        heads,
        (_row(rows[name]["title"], values) for name, values in told.items()),
        "Means over test patients, each measured as a whole; Dice and Jaccard over the classes but "
        "the background. Epsilon is of the unit that stands beside it, and of no other.",
    )


def promises(rows: Metadata) -> Iterator[Markup]:
    """Says in words what each training hides, and from whom."""
    for row in rows.values():
        if row["unit"]:
            yield tag("p", tag("strong", row["title"]), ". ", row["promise"])
    yield tag(
        "p",
        "All others promise nothing: weights that are trained without noise may tell of single "
        "patients. This was a simulation: its noise was drawn from the seed, which is no secret.",
    )


def by_site(rows: Metadata) -> Iterator[Markup]:
    """Tells the Dice of each training on the test patients of each site."""
    names = list(next(iter(rows.values()))["dice_by_site"])
    yield _table(
        ["Training", *names],
        (
            _row(row["title"], {name: f"{row['dice_by_site'][name]:.3f}" for name in names})
            for row in rows.values()
        ),
        "Dice.",
    )


def counts(sites: Metadata) -> Iterator[Markup]:
    """Counts what each site has."""
    heads = ["Site", "Training patients", "Training images", "Test images"]
    yield _table(
        heads,
        (
            _row(
                name,
                {
                    heads[1]: f"{site['train_patients']:,}",
                    heads[2]: f"{site['train_images']:,}",
                    heads[3]: f"{site['test_images']:,}",
                },
            )
            for name, site in sites.items()
        ),
        "What each site trains and is tested on.",
    )
