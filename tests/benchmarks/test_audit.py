import sys

import pytest

from benchmarks import audit


def _by_metric(rows):
    return {row.metric: row for row in rows}


def _found(value):
    attack = {"auc": {"value": value, "low": value - 0.1, "high": value + 0.1}}
    part = {"attacks": dict.fromkeys(audit.judging.ATTACKS, attack), "epsilon": value}
    return {"tests": {"singling_out": part}}


def test_figures_are_means_over_audits_and_say_whether_a_half_is_covered():
    results = [_found(value) for value in (0.45, 0.55, 0.65)]
    rows = _by_metric([*audit._figures("null", results), *audit._covered(results)])
    assert rows["null_auc_loss"].value == pytest.approx(0.55)
    assert rows["null_auc_loss"].std == pytest.approx(0.1)
    assert rows["null_auc_loss"].n == rows["null_empirical_epsilon"].n == 3
    assert rows["null_covered_loss"].value == pytest.approx(2 / 3)
    assert rows["null_mean_covers_loss"].value == 1


def test_unknown_cases_are_named(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["audit", "nil"])
    with pytest.raises(SystemExit):
        audit.main()
    assert "unknown case nil; there are demo, null, planted, private" in capsys.readouterr().err


@pytest.mark.slow
def test_a_planted_leak_is_found_and_nothing_where_nothing_is(tmp_path, monkeypatch):
    monkeypatch.setattr(audit, "_SEEDS", 1)
    monkeypatch.setattr(audit, "_NULLS", 6)
    planted = _by_metric(audit.planted_case(tmp_path / "planted"))
    assert planted["planted_leak_auc"].value >= 0.95
    assert planted["planted_leak_power"].value >= 0.5
    null = _by_metric(audit.null_case(tmp_path / "null"))
    assert null["null_empirical_epsilon"].value <= 0.1
    for name in audit.judging.ATTACKS:
        assert null[f"null_auc_{name}"].value == pytest.approx(0.5, abs=0.08)
