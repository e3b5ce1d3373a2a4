import sys

import numpy as np
import pytest

from benchmarks import outer_step, scaling
from benchmarks.record import Figure, read
from gxdistill.errors import UserError
from tests.plots import texts

_COMMON = {
    "std": None,
    "n": 9,
    "unit": "s",
    "command": "x",
    "commit": "x",
    "device": "CPU",
    "jax": "x",
    "cpu_s": 1.0,
    "wall_s": 1.0,
    "date": "x",
}


def _figures(axis, scale=1.0):
    return [
        Figure(
            setting.case, metric, round(scale * (0.2 + 0.01 * axis.place(setting)), 4), **_COMMON
        )
        for setting in axis.settings
        for metric in ("median_cpu_s", "temp_mb")
    ]


def test_a_line_is_fitted():
    start, slope, fit = scaling.line([1, 2, 4], [3.0, 5.0, 9.0])
    np.testing.assert_allclose((start, slope, fit), (1, 2, 1), atol=1e-12)
    # By hand: the mean is 2, the slope 0, and nothing of the spread is explained.
    np.testing.assert_allclose(scaling.line([0, 1, 2], [1.0, 4.0, 1.0]), (2, 0, 0), atol=1e-12)


@pytest.mark.parametrize("name", scaling.AXES)
def test_the_latest_figures_are_drawn(name, tmp_path):
    axis = scaling.AXES[name]
    figures = [*_figures(axis, scale=7), *_figures(axis)]
    path = scaling.plot(name, figures, tmp_path / "plots")
    drawn = texts(path)
    for setting in axis.settings:
        assert f"{0.2 + 0.01 * axis.place(setting):.3g}" in drawn
    assert drawn.count(axis.label) == 2
    assert any(text.startswith("CPU seconds: 0.2 + 0.01 x, R² 1.000") for text in drawn)
    before = path.read_bytes()
    assert scaling.plot(name, figures, tmp_path / "plots").read_bytes() == before


def test_a_point_that_is_not_recorded_is_named_with_its_command(tmp_path):
    axis = scaling.AXES["batch"]
    with pytest.raises(
        UserError, match=r"python -m benchmarks\.outer_step --batch=2048 --threads=1"
    ):
        scaling.plot("batch", _figures(axis)[:-2], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_command_measures_its_setting(monkeypatch):
    setting = scaling.AXES["image_size"].settings[0]
    seen = []
    monkeypatch.setattr(
        outer_step, "measure", lambda setting, repeats: seen.append((setting, repeats))
    )
    monkeypatch.setattr(outer_step, "stay_on", lambda _: None)
    monkeypatch.setattr(sys, "argv", scaling.command(setting, 3)[2:-1])
    with pytest.raises(TypeError):  # nothing measured is nothing to print
        outer_step.main()
    assert seen == [(setting, 3)]


@pytest.mark.parametrize(
    "path", sorted(scaling.PLOTS.glob("cost_*.svg")), ids=lambda path: path.stem
)
def test_the_plots_show_what_is_recorded(path, tmp_path):
    name = path.stem.removeprefix("cost_against_")
    assert texts(path) == texts(scaling.plot(name, read(), tmp_path))
