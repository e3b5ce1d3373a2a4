"""What a set is worth at each site, and at one that nothing was learned from."""

from collections.abc import Iterator

from gxdistill.pytrees import Metadata
from gxdistill.report.findings import Findings
from gxdistill.report.markup import Markup, tag
from gxdistill.report.sections.results import cell

_CONTENDERS = {"distilled": "Distilled images", "all_patches": "Ceiling: all real patches"}
_COLUMNS = {"hm": "HM", "auc": "AUC"}


def by_site(findings: Findings) -> Iterator[Markup]:
    """Sets the sites of the test patients, and the one that was kept out, beside each other."""
    distilled = findings.contenders["distilled"]
    apart = distilled.get("sites", {})
    rows = [_row(f"Test patients of {name}", part) for name, part in apart.items()]
    rows += [row for name, title in _CONTENDERS.items() for row in _kept_out(findings, name, title)]
    if not rows:
        text = "One site: what the images are worth elsewhere was not measured (data.external)."
        yield tag("p", text, class_="absent")
        return
    head = tag("tr", tag("th", "Decided", scope="col"), *_heads())
    caption = (
        "Of the site that was kept out all patients, at each network's own threshold, and at one "
        "set on its images without labels: as large a share is positive as of the training images."
    )
    yield tag(
        "table", tag("caption", caption), tag("thead", head), tag("tbody", *rows), class_="contest"
    )


def _kept_out(findings: Findings, name: str, title: str) -> Iterator[Markup]:
    external = findings.contenders.get(name, {}).get("external")
    if external is None:
        return
    where = f"{title}, at {external['site']}, of which nothing was learned"
    yield _row(where, external["images"])
    if "joint" in external:
        yield _row(f"{where}; threshold set without labels", external["joint"])


def _heads() -> Iterator[Markup]:
    for label in _COLUMNS.values():
        yield tag("th", label, scope="col")


def _row(title: str, part: Metadata) -> Markup:
    cells = (cell(part.get(key), label) for key, label in _COLUMNS.items())
    about = tag("small", f"{part['images']} images")
    return tag("tr", tag("th", title, about, scope="row"), *cells)
