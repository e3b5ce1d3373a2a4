import pytest

from benchmarks import mixup_privacy
from benchmarks.record import Figure
from gxdistill.errors import UserError

_LINE = {
    "std": 0.01, "n": 3, "unit": "1", "command": "c", "commit": "c", "device": "CPU", "jax": "0",
    "cpu_s": 1.0, "wall_s": 1.0, "date": "2026",
}  # fmt: skip


def test_figures_are_means_over_seeds_and_losses_are_in_points():
    def result(dice, raw, likeness):
        part = {"dice": dice, "hd95": 2.0}
        found = {"likeness": likeness, "a trained network": 4.0, "known references": 60.0}
        return {
            "contenders": {
                "unmixed": part,
                "raw images": {"dice": raw, "hd95": 1.0},
                "mixture alone": part,
            },
            "audit": {
                "tests": {
                    "singling_out": {
                        "attacks": {
                            name: {"over_chance": value, "ms_ssim": value / 100}
                            for name, value in found.items()
                        },
                        "ms_ssim_of_mean_patient": 0.3,
                    }
                }
            },
        }

    results = [result(0.7, 0.8, 3.0), result(0.8, 0.82, 7.0)]
    rows = {row.metric: row for row in mixup_privacy.figures(results)}
    assert tuple(rows) == mixup_privacy.METRICS
    assert rows["dice_loss"].value == pytest.approx(6)
    assert rows["dice_loss"].std == pytest.approx(8 / 2**0.5)
    assert rows["reid_known_over_chance"].value == 60
    assert rows["reid_likeness_over_chance"].value == 5
    assert rows["ms_ssim_rebuilt"].value == pytest.approx(0.055)
    assert rows["ms_ssim_known"].value == pytest.approx(0.6)
    assert rows["reid_over_chance"].value == 5.5  # of each seed the best that knows no reference


def test_the_law_of_the_config_is_the_case_itself():
    assert mixup_privacy.case_of("0.11-0.22") == "mixup_privacy_11_22"
    assert mixup_privacy.CASES[0] == "mixup_privacy"
    assert len({*mixup_privacy.CASES}) == len(mixup_privacy.LAWS)


def test_each_attack_is_drawn_over_the_laws(tmp_path):
    figures = [
        Figure(case=case, metric=metric, value=2.0, **_LINE)
        for case in mixup_privacy.CASES
        for metric in mixup_privacy.METRICS
    ]
    drawn = mixup_privacy.plot(figures, tmp_path / "plots/curve.svg").read_text()
    for text in (*mixup_privacy.LAWS, *mixup_privacy.ATTACKS, "chance"):
        assert f">{text}<" in drawn
    some = [figure for figure in figures if figure.metric != "reid_known_over_chance"]
    with pytest.raises(UserError, match="reid_known_over_chance is not recorded"):
        mixup_privacy.plot(some, tmp_path / "plots/curve.svg")
