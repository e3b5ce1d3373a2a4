import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import package_size
from benchmarks.package_size import Point
from benchmarks.record import read, record
from benchmarks.scaling import PLOTS
from tests import toy
from tests.plots import texts

POINTS = [
    Point("dense", 1.0, 1.0, 0.80, 0.82),
    Point("shared", 0.01, 0.004, 0.70, 0.72),
    Point("shared", 0.03, 0.008, 0.797, 0.816),
    Point("shared", 0.1, 0.02, 0.799, 0.82),
    Point("int8", 1.0, 0.25, 0.79, 0.81),
]


def test_the_smallest_that_loses_little_on_training_patches_is_chosen():
    assert package_size.chosen(POINTS) == POINTS[2]
    assert package_size.chosen(POINTS[:2]) == POINTS[1]  # nothing does: the least lossy


def test_ratios_and_losses_are_named_after_the_network():
    replayed = {"ratio": 0.005, "bytes": 200, "before": 0.77, "after": 0.768}
    rows = {row[1]: row for row in package_size.figures("lenet", POINTS, replayed)}
    assert rows["delta_ratio_lenet"] == ("package_size", "delta_ratio_lenet", 0.008, "1")
    assert rows["delta_loss_lenet"][2:] == (pytest.approx(0.3), "points")
    assert rows["rounding_loss_lenet"][2:] == (pytest.approx(0.2), "points")
    assert rows["replay_loss_lenet"][2:] == (pytest.approx(3.2), "points")
    assert rows["balanced_delta_lenet"][2] == 0.797
    assert rows["replay_ratio_lenet"][2] == 0.005
    assert rows["shared_0030_ratio"] == ("package_size_lenet", "shared_0030_ratio", 0.008, "1")
    assert not any("replay" in row[1] for row in package_size.figures("lenet", POINTS, {}))


def test_plain_rounding_and_pruning_are_what_their_names_say():
    params = toy.network(hidden=40).init(jax.random.key(0))
    leaves = {name: np.asarray(leaf) for name, leaf in params.items()}
    found, size = package_size.plain(params, 1.0)
    for name, leaf in leaves.items():
        step = np.abs(leaf).max() / 127
        assert np.abs(np.asarray(found[name]) - leaf).max() <= 0.501 * step
    assert size < 0.4 * package_size.bytes_of(params)
    pruned, smaller = package_size.plain(params, 0.1)
    kernels = np.concatenate([np.asarray(pruned[name]).ravel() for name in ("first", "last")])
    before = np.concatenate([leaves[name].ravel() for name in ("first", "last")])
    assert np.mean(kernels != 0) == pytest.approx(0.1, abs=0.01)
    assert np.abs(before[kernels == 0]).max() <= np.abs(before[kernels != 0]).min()
    assert smaller < size
    assert package_size.bytes_of({"x": jnp.zeros((3, 5))}) == 60


def test_a_stage_is_measured_once(tmp_path):
    calls = []
    for _ in range(2):
        points = package_size.cached(tmp_path / "a/b.json", lambda: calls.append(1) or [POINTS[0]])
    assert [Point(*row) for row in points] == POINTS[:1]
    assert calls == [1]


@pytest.mark.usefixtures("git_checkout")
def test_recorded_points_are_drawn(tmp_path):
    replayed = {"ratio": 0.005, "bytes": 200, "before": 0.77, "after": 0.768}
    for case, metric, value, unit in package_size.figures("lenet", POINTS, replayed):
        spent = {"cpu_s": 1.0, "wall_s": 1.0}
        record(case, metric, value, unit=unit, command="x", folder=tmp_path / "results", **spent)
    path = package_size.plot(read(tmp_path / "results"), tmp_path / "plots")
    text = path.read_text()
    for word in (
        "lenet",
        "plain 8 bits",
        "seed and shared values",
        "seed and synthetic images",
        "balanced accuracy",
    ):
        assert word in text
    assert "resnet18" not in text


def test_points_of_a_former_commit_are_not_drawn():
    figures = [figure for figure in read() if figure.case == "package_size_lenet"]
    now = package_size._points("lenet", figures)
    assert {"dense", "int8", "pruned", "shared"} <= {kind for kind, _, _ in now}
    former = [
        dataclasses.replace(figures[0], metric=f"shared_0999_{of}", value=0.5, commit="0" * 12)
        for of in ("ratio", "balanced")
    ]
    assert sorted(package_size._points("lenet", [*former, *figures])) == sorted(now)
    assert package_size._points("lenet", former) == [("shared", 0.5, 0.5)]


def test_the_plot_shows_what_is_recorded(tmp_path):
    drawn = package_size.plot(read(), tmp_path)
    assert texts(PLOTS / drawn.name) == texts(drawn)
