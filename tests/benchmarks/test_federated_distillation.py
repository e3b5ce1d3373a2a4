import pytest

from benchmarks import federated_distillation


def test_shares_and_sites_are_of_the_sets_that_they_are_named_by():
    def part(auc, montgomery, shenzhen):
        sites = {
            "Montgomery": {"auc": {"mean": montgomery}},
            "Shenzhen": {"auc": {"mean": shenzhen}},
        }
        return {"images": {"auc": {"mean": auc}}, "sites": sites}

    told = {
        "central": part(0.8, 0.1, 0.2),
        "shared": part(0.76, 0.78, 0.75),
        "without_montgomery": part(0.3, 0.7, 0.4),
        "without_shenzhen": part(0.3, 0.5, 0.65),
    }
    rows = {row.metric: row.value for row in federated_distillation.figures(told, 1000)}
    assert rows["auc_share"] == pytest.approx(0.95)
    assert rows["auc_montgomery"] == 0.78
    assert rows["auc_alone_montgomery"] == 0.7  # Shenzhen's set, on Montgomery's patients.
    assert rows["auc_alone_shenzhen"] == 0.65
    assert rows["bytes_a_step"] == 1000
    # The published network has 11.2 million weights besides 1,000 classes in place of 3.
    assert rows["bytes_ratio"] == pytest.approx(4 * 11.2e6 / 1000, rel=0.01)
