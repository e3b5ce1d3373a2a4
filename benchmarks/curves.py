"""A figure against the privacy that it cost, drawn as SVG whose text stays text."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.record import Figure
from gxdistill.errors import UserError


def over_epsilons(recorded: Sequence[Figure], case: str, metric: str) -> dict[int, Figure]:
    """Finds the latest figures of a case that are named by their epsilon, as `auc_eps8`.

    Returns:
      By epsilon, from the smallest.

    Raises:
      UserError: there is none.
    """
    start = f"{metric}_eps"
    known = {
        int(figure.metric.removeprefix(start)): figure
        for figure in recorded
        if figure.case == case and figure.metric.startswith(start)
    }
    if not known:
        raise UserError(f"Of {case}, {metric} is recorded at no epsilon.")
    return dict(sorted(known.items()))


def draw(
    path: Path, points: Sequence[Figure], marks: Sequence[str], xlabel: str, title: str
) -> None:
    """Draws figures at even distances, each with its value and its spread over runs.

    Args:
      path: the picture, whose folder is made where there is none.
      points: n figures.
      marks: what stands under each, n.
      xlabel: what the marks are.
      title: what the figures are.
    """
    import matplotlib
    from matplotlib.figure import Figure as Picture

    places = range(len(points))
    values, spreads = [p.value for p in points], [p.std or 0 for p in points]
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": title, "font.size": 9}):
        picture = Picture(figsize=(5, 3))
        picture.subplots_adjust(0.12, 0.16, 0.97, 0.9)
        ax = picture.add_subplot()
        ax.errorbar(places, values, spreads, fmt="o-", color="#1f5fa8", capsize=3)
        for at, value in zip(places, values, strict=True):
            ax.annotate(f"{value:.3f}", (at, value), (5, 5), textcoords="offset points")
        ax.set_xticks(places, marks)
        ax.set_xlabel(xlabel)
        ax.set_title(title, fontsize=10)
        ax.margins(0.14, 0.25)
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.savefig(path, metadata={"Date": None})
