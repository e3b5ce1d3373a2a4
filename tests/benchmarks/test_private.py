import pytest

from benchmarks import private
from benchmarks.record import Figure
from gxdistill.errors import UserError

_LINE = {
    "case": "mnist_private", "metric": "accuracy_eps1", "value": 0.9, "std": 0.01, "n": 3,
    "unit": "1", "command": "c", "commit": "c", "device": "CPU", "jax": "0", "cpu_s": 1.0,
    "wall_s": 1.0, "date": "2026",
}  # fmt: skip


def _evaluation(accuracy, hm, size=10):
    images = {"hm": {"mean": hm}, "auc": {"mean": 0.8}}
    distilled = {"accuracy": {"mean": accuracy}, "images": images}
    return {"package_bytes": size, "contenders": {"distilled": distilled}}


def test_figures_are_means_over_runs_and_named_by_epsilon():
    rows = {
        row.metric: row
        for row in private.figures([_evaluation(0.9, 0.6), _evaluation(0.8, 0.7, 20)], 8)
    }
    assert rows["accuracy_eps8"][1:4] == (pytest.approx(0.85), pytest.approx(0.0707, abs=1e-4), 2)
    assert rows["auc_eps8"].value == pytest.approx(0.8)
    assert rows["package_bytes_eps8"].value == 20  # the largest: it is what must fit
    share = private.shares([_evaluation(0.9, 0.6)], [_evaluation(0, 0.7), _evaluation(0, 0.9)], 8)
    assert share.value == pytest.approx(0.75)


def test_the_curve_shows_the_latest_figure_of_each_epsilon(tmp_path):
    figures = [
        Figure(**_LINE | {"metric": f"accuracy_eps{epsilon}", "value": value})
        for value in (0.111, 0.222)
        for epsilon in private.EPSILONS
    ]
    path = private.plot("mnist_private", figures, tmp_path)
    drawn = path.read_text()
    assert drawn.count(">0.222<") == len(private.EPSILONS)
    assert "0.111" not in drawn
    assert "no noise" in drawn
    with pytest.raises(UserError, match="accuracy is recorded at no epsilon"):
        private.plot("mnist_private", [], tmp_path)
