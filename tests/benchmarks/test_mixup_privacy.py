import pytest

from benchmarks import mixup_privacy


def test_figures_are_means_over_seeds_and_losses_are_in_points():
    def result(dice, raw):
        part = {"dice": dice, "hd95": 2.0}
        found = {"over_chance": 4.0}
        return {
            "contenders": {
                "unmixed": part,
                "raw images": {"dice": raw, "hd95": 1.0},
                "mixture alone": part,
            },
            "reidentified": dict.fromkeys(mixup_privacy.ATTACKS, found),
        }

    rows = {row.metric: row for row in mixup_privacy.figures([result(0.7, 0.8), result(0.8, 0.82)])}
    assert tuple(rows) == mixup_privacy.METRICS
    assert rows["dice_loss"].value == pytest.approx(6)
    assert rows["dice_loss"].std == pytest.approx(8 / 2**0.5)
    assert rows["reid_known_over_chance"].value == 4
    assert mixup_privacy.case_of("0.05-0.1") == "mixup_privacy_5_10"
