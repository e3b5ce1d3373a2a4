"""The page: its sections in the order in which a person asks."""

from pathlib import Path

from gxdistill import storage
from gxdistill.report.findings import Findings, gather
from gxdistill.report.markup import join, tag
from gxdistill.report.sections import background, images, results, sites
from gxdistill.report.style import document

_SECTIONS = (
    ("images", "Distilled images", images.distilled),
    ("comparison", "Comparison", results.comparison),
    ("sites", "Sites", sites.by_site),
    ("roc", "ROC", results.roc),
    ("learning", "Learning curves", results.curves),
    ("heat-maps", "Whole test images", images.heat_maps),
    ("cohort", "Cohort", background.cohort),
    ("sizes", "Sizes", results.sizes),
    ("making", "How it was made", background.making),
)


def write(workdir: Path, package_path: Path) -> Path:
    """Writes `workdir/report.html`: one file that asks nothing of any network and runs no script.

    Args:
      workdir: what the earlier stages wrote. `cohort.json` must be there; where `history.jsonl`,
        `evaluation.json` or `heatmaps.npz` is not, the page says so.
      package_path: file of the package.

    Returns:
      The path of the page.

    Raises:
      UserError: the cohort or the package is missing, a file cannot be read, or matplotlib is not
        installed.
    """
    path = workdir / "report.html"
    storage.write_text(path, _page(gather(workdir, package_path)))
    return path


def _page(findings: Findings) -> str:
    steps, per_step = findings.package.distilled.images.shape[:2]
    ours, real = steps * per_step, findings.patches
    title = (
        f"{findings.units(real)} distilled into {ours:,}"
        if findings.is_learned
        else f"{findings.units(ours)} drawn in place of {real:,}"
    )
    name = findings.manifest.name
    links = (join(tag("a", text, href=f"#{key}"), " ") for key, text, _ in _SECTIONS)
    header = tag(
        "header",
        tag("p", f"gxdistill report: {name}", class_="kicker"),
        tag("h1", title),
        results.verdict(findings),
        tag("nav", *links, aria_label="Sections"),
    )
    sections = (
        tag("section", tag("h2", text, id=key), *make(findings), aria_labelledby=key)
        for key, text, make in _SECTIONS
    )
    main = tag("main", background.privacy(findings), *sections)
    return document(f"{name}: {title}", header, main)
