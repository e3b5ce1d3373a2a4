import pytest

from benchmarks import federation
from benchmarks.record import Figure


def _row(dice, epsilon=None):
    return {
        "dice": dice, "jaccard": dice - 0.1, "accuracy": 0.9, "epsilon": epsilon,
        "bytes_a_round": 12,
    }  # fmt: skip


def test_losses_are_points_against_what_each_is_compared_with():
    told = {
        "contenders": {
            "alone/0": _row(0.5),
            "alone/1": _row(0.7),
            "central": _row(0.82),
            "federated": _row(0.8),
            "site": _row(0.79),
            "patient": _row(0.7, 8.0),
        }
    }
    rows = {row.metric: (row.value, row.unit) for row in federation.figures(told)}
    assert rows["dice_alone"] == (pytest.approx(0.6), "1")
    assert rows["dice_alone_best"] == (0.7, "1")
    assert rows["federated_loss"] == (pytest.approx(2), "points")
    assert rows["dice_loss_site"] == (pytest.approx(1), "points")
    assert rows["jaccard_loss_patient"] == (pytest.approx(10), "points")
    assert rows["accuracy_loss_patient"] == (0, "points")
    assert rows["epsilon_patient"] == (8, "1")
    assert "epsilon_site" not in rows  # Above what is accounted for.
    assert rows["bytes_a_round"] == (12, "B")


def test_the_curve_is_drawn_of_the_latest_figures(tmp_path):
    line = {
        "case": "feddp", "std": 0.01, "n": 3, "unit": "1", "command": "c", "commit": "c",
        "device": "CPU", "jax": "0", "cpu_s": 1.0, "wall_s": 1.0, "date": "2026",
    }  # fmt: skip
    figures = [
        Figure(**line, metric=f"dice_eps{epsilon}", value=value)
        for value in (0.111, 0.222)
        for epsilon in federation.EPSILONS
    ]
    federation.plot(figures, tmp_path / "folder/curve.svg")
    drawn = (tmp_path / "folder/curve.svg").read_text()
    assert drawn.count(">0.222<") == len(federation.EPSILONS)
    assert "0.111" not in drawn
