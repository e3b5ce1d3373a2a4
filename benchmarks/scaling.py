"""Cost of one outer step against T, batch, networks and image size: measured, recorded, drawn.

    python -m benchmarks.scaling --measure    # measures and records every point, then draws
    python -m benchmarks.scaling              # draws plots/*.svg from what is recorded

A point is a case of `benchmarks.outer_step`, on one processor; the line is the least-squares fit.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from benchmarks.outer_step import Setting
from benchmarks.record import RESULTS, ROOT, Figure, read
from gxdistill.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PLOTS = ROOT / "benchmarks/plots"
_BASE = Setting(threads=1)


class Axis(NamedTuple):
    """What the cost is drawn against.

    Attributes:
      label: of the horizontal axis.
      settings: the points.
      place: where a setting stands on the axis.
    """

    label: str
    settings: tuple[Setting, ...]
    place: Callable[[Setting], int]


AXES = {
    "inner_steps": Axis(
        "inner steps T",
        tuple(replace(_BASE, steps=steps) for steps in (1, 10, 30, 100)),
        lambda setting: setting.steps * setting.epochs,
    ),
    "inner_steps_nested": Axis(
        "inner steps T, memory nested",
        tuple(replace(_BASE, steps=steps, memory="nested") for steps in (1, 10, 30, 100)),
        lambda setting: setting.steps * setting.epochs,
    ),
    "batch": Axis(
        "real images",
        tuple(replace(_BASE, batch=batch) for batch in (256, 512, 1024, 2048)),
        lambda setting: setting.batch,
    ),
    "networks": Axis(
        "networks",
        tuple(replace(_BASE, networks=networks) for networks in (1, 2, 4, 8)),
        lambda setting: setting.networks,
    ),
    "image_size": Axis(
        "pixels of an image",
        tuple(replace(_BASE, image_size=side) for side in (14, 28, 42, 56)),
        lambda setting: setting.image_size**2,
    ),
}
_PANELS = {"median_cpu_s": ("CPU seconds", ".3g"), "temp_mb": ("temporary memory, MB", ".1f")}


def command(setting: Setting, repeats: int) -> list[str]:
    """Writes the command that measures and records a point."""
    given = asdict(setting).items()
    flags = [f"--{k.replace('_', '-')}={v}" for k, v in given if v != getattr(Setting(), k)]
    return ["python", "-m", "benchmarks.outer_step", *flags, f"--repeats={repeats}", "--record"]


def line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float, float]:
    """Fits a line by least squares: its value at 0, its slope, and R², 1 for points on it."""
    slope, start = np.polyfit(x, y, 1)
    heights = np.asarray(y)
    rest = np.square(heights - start - slope * np.asarray(x)).sum()
    return float(start), float(slope), float(1 - rest / np.square(heights - heights.mean()).sum())


def _values(axis: Axis, figures: Sequence[Figure], metric: str) -> list[float]:
    latest = {figure.case: figure.value for figure in figures if figure.metric == metric}
    for setting in axis.settings:
        if setting.case not in latest:
            raise UserError(f"{setting.case} is not recorded. Run: {' '.join(command(setting, 9))}")
    return [latest[setting.case] for setting in axis.settings]


def _draw(ax: "Axes", axis: Axis, metric: str, y: list[float]) -> None:
    name, form = _PANELS[metric]
    x = [axis.place(setting) for setting in axis.settings]
    start, slope, fit = line(x, y)
    ends = np.array([0, max(x)])
    ax.plot(ends, start + slope * ends, color="0.6", linewidth=1)
    ax.plot(x, y, "o", color="#1f5fa8")
    for at, value in zip(x, y, strict=True):
        shift = (0, 7)
        ax.annotate(f"{value:{form}}", (at, value), shift, textcoords="offset points", ha="center")
    ax.set_xlim(-0.07 * max(x), 1.08 * max(x))
    ax.set_ylim(0, 1.2 * max(y))
    ax.set_xlabel(axis.label)
    sign = "-" if slope < 0 else "+"
    ax.set_title(f"{name}: {start:.3g} {sign} {abs(slope):.3g} x, R² {fit:.3f}", fontsize=10)


def plot(name: str, figures: Sequence[Figure], folder: Path) -> Path:
    """Draws processor time and memory against one axis.

    Args:
      name: of the axis in `AXES`.
      figures: in the order in which they were measured; the latest counts.
      folder: where the picture goes.

    Returns:
      The picture, SVG; its text stays text.

    Raises:
      UserError: a point is not recorded.
    """
    import matplotlib
    from matplotlib.figure import Figure as Picture

    axis = AXES[name]
    panels = {metric: _values(axis, figures, metric) for metric in _PANELS}
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 9}):
        picture = Picture(figsize=(8, 3))
        picture.subplots_adjust(0.06, 0.16, 0.98, 0.9, 0.16)
        for place, (metric, values) in enumerate(panels.items(), start=1):
            _draw(picture.add_subplot(1, 2, place), axis, metric, values)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"cost_against_{name}.svg"
        picture.savefig(path, metadata={"Date": None})
    return path


def main() -> None:
    """Measures where asked to, and draws."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--axes", nargs="+", choices=tuple(AXES), default=tuple(AXES))
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    settings = dict.fromkeys(s for name in arguments.axes for s in AXES[name].settings)
    for setting in settings if arguments.measure else ():
        measuring = [sys.executable, *command(setting, arguments.repeats)[1:]]
        subprocess.run(measuring, cwd=ROOT, check=True)
    figures = read(RESULTS)
    try:
        for name in arguments.axes:
            print(plot(name, figures, PLOTS))
    except UserError as error:
        sys.exit(f"benchmarks.scaling: {error}")


if __name__ == "__main__":
    main()
