"""Curves as inline SVG: text stays text, and colours are those of the page, light or dark."""

import io
import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gxdistill.errors import UserError
from gxdistill.pytrees import Metadata
from gxdistill.report.markup import Markup, tag

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Matplotlib draws in stand-ins, which become the page's colours.
_INK, _FAINT, _OURS, _CEILING = "#010101", "#020202", "#030303", "#040404"
_COLOURS = {
    _INK: "currentColor",
    _FAINT: "var(--rule)",
    _OURS: "var(--ours)",
    _CEILING: "var(--ceiling)",
}
_STYLE: dict[Any, Any] = {
    "axes.edgecolor": _INK,
    "axes.grid": True,
    "axes.labelcolor": _INK,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 10,
    "grid.color": _FAINT,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.7,
    "svg.fonttype": "none",
    "text.color": _INK,
    "xtick.color": _INK,
    "xtick.major.width": 0.6,
    "ytick.color": _INK,
    "ytick.major.width": 0.6,
}
_WIDE, _SQUARE = (4.7, 3.5), (4.7, 4.5)  # Inches.


def _svg(
    name: str, alt: str, draw: Callable[["Axes"], None], inches: tuple[float, float]
) -> Markup:
    """Draws a figure; `name` keeps its ids apart from other figures'."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise UserError(
            "The report's curves need the library matplotlib. Install it: pip install matplotlib."
        ) from error

    buffer = io.StringIO()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # The page is the same whatever the user's own settings.
        matplotlib.rcParams.update({**_STYLE, "svg.hashsalt": name})
        figure = Figure(figsize=inches, layout="constrained")
        draw(figure.add_subplot())
        no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=no_metadata, transparent=True)
    return _inlined(buffer.getvalue(), name, alt)


def _inlined(svg: str, name: str, alt: str) -> Markup:
    start = svg.index("<svg")
    view_box = re.search(r'viewBox="([^"]*)"', svg).group(1)  # type: ignore[union-attr]
    body = svg[svg.index(">", start) + 1 : svg.rindex("</svg>")]
    # Its style sheet would hold for the whole page.
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, flags=re.DOTALL)
    body = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", body)
    body = re.sub(r'(id="|url\(#|xlink:href="#)', rf"\1{name}-", body)
    for stand_in, colour in _COLOURS.items():
        body = body.replace(stand_in, colour)
    return tag("svg", Markup(body), viewBox=view_box, class_="plot", role="img", aria_label=alt)


def roc(curves: Metadata) -> Markup:
    """Draws ROC curves.

    Args:
      curves: "distilled" and, where known, "all_patches": figures of a contender, with `roc`.
    """
    styles = {
        "all_patches": ("all real patches", _CEILING, (0, (4, 2))),
        "distilled": ("distilled", _OURS, "-"),
    }
    aucs = {
        name: f"{styles[name][0]}, AUC {part['images']['auc']['mean']:.3f}"
        for name, part in curves.items()
    }

    def draw(axes: "Axes") -> None:
        axes.plot([0, 1], [0, 1], color=_INK, linewidth=0.6, alpha=0.5)
        for name, (_, colour, line) in styles.items():
            if name not in curves:
                continue
            points = curves[name]["roc"]
            axes.plot(
                points["false_positive"],
                points["true_positive"],
                color=colour,
                linestyle=line,
                label=aucs[name],
            )
            images = curves[name]["images"]
            axes.plot(1 - images["spe"]["mean"], images["sen"]["mean"], "o", color=colour)
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
        axes.set(xlabel="1 \N{MINUS SIGN} specificity", ylabel="sensitivity")
        axes.legend(loc="lower right", reverse=True)

    return _svg("roc", f"ROC curves on the test images: {'; '.join(aucs.values())}.", draw, _SQUARE)


def reliability(bins: Metadata) -> Markup:
    """Draws how often scores are right.

    Args:
      bins: by contender as in `roc`, what `evaluation.reliability.summarise` says.
    """
    styles = {"all_patches": ("all real patches", _CEILING), "distilled": ("distilled", _OURS)}

    def draw(axes: "Axes") -> None:
        axes.plot([0, 1], [0, 1], color=_INK, linewidth=0.6, alpha=0.5)
        for name, (label, colour) in styles.items():
            if name in bins:
                part = bins[name]
                axes.plot(part["score"], part["positive"], "o-", color=colour, label=label)
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
        axes.set(xlabel="score", ylabel="share of positives")
        axes.legend(loc="lower right", reverse=True)

    errors = "; ".join(f"{styles[name][0]}: error {part['ece']:.3f}" for name, part in bins.items())
    return _svg("reliability", f"Scores against shares of positives. {errors}.", draw, _SQUARE)


def curve(
    history: list[Metadata],
    field: str,
    title: str,
    ceiling: float | None = None,
    *,
    axis: str = "outer step",
) -> Markup | None:
    """Draws a figure of the history over the steps of a loop.

    Args:
      history: lines with `step` and now and then `field`.
      field: which figure.
      title: how the page calls it.
      ceiling: drawn as a dashed line.
      axis: what a step is called.

    Returns:
      The drawing; None where the history has fewer than two values.
    """
    known = [(line["step"], line[field]) for line in history if field in line]
    points = [(step, value) for step, value in known if math.isfinite(value)]
    if len(points) < 2:
        return None
    (first, begun), (last, ended) = points[0], points[-1]

    def draw(axes: "Axes") -> None:
        marker = "o" if len(points) <= 40 else ""
        axes.plot(*zip(*points, strict=True), color=_OURS, marker=marker, markersize=3.5)
        if ceiling is not None:
            axes.axhline(ceiling, color=_CEILING, linestyle=(0, (4, 2)), linewidth=1.2)
            axes.annotate(
                "all real patches",
                (last, ceiling),
                (0, 3),
                textcoords="offset points",
                color=_CEILING,
                ha="right",
                fontsize=9,
            )
        axes.locator_params("x", integer=True)
        axes.set(xlabel=axis, ylabel=title)

    alt = f"{title}: {begun:.3f} at {axis} {first}, {ended:.3f} at {axis} {last}."
    return _svg(field, alt, draw, _WIDE)
