import numpy as np
import pytest

from gxdistill.evaluation import reliability


def _bins(scores, labels, bins):
    """A loop over the bins, each by its edges."""
    rows = []
    for i in range(bins):
        inside = [
            (s, y)
            for s, y in zip(scores, labels, strict=True)
            if i / bins <= s < (i + 1) / bins or (i == bins - 1 and s == 1)
        ]
        if inside:
            rows.append((*np.mean(inside, axis=0), len(inside)))
    return np.array(rows).T


@pytest.mark.parametrize("bins", [1, 4, 10])
def test_bins_and_error_are_those_of_a_loop(bins):
    rng = np.random.default_rng(0)
    scores, labels = np.r_[rng.uniform(size=60), 0, 1], rng.integers(0, 2, 62)
    expected = _bins(scores, labels, bins)
    np.testing.assert_allclose(reliability.reliability(scores, labels, bins), expected)
    means, shares, counts = expected
    error = sum(n / 62 * abs(m - s) for m, s, n in zip(means, shares, counts, strict=True))
    assert reliability.expected_calibration_error(scores, labels, bins) == pytest.approx(error)


def test_scores_that_are_probabilities_have_little_error_and_bold_ones_much():
    rng = np.random.default_rng(1)
    scores = rng.uniform(size=50_000)
    labels = (rng.uniform(size=50_000) < scores).astype(int)
    bold = np.clip(0.5 + 3 * (scores - 0.5), 0, 1)
    assert reliability.expected_calibration_error(scores, labels) < 0.01
    assert reliability.expected_calibration_error(bold, labels) > 0.1
    assert reliability.brier_score(scores, labels) == pytest.approx(1 / 6, abs=0.003)  # E[p(1-p)]
    assert reliability.brier_score(np.full(50_000, 0.5), labels) == 0.25


def test_undecidable_images_are_left_out_and_what_is_no_share_is_refused():
    scores, labels = np.array([0.1, np.nan, 0.9]), np.array([0, 1, 1])
    summary = reliability.summarise(scores, labels)
    assert summary["brier"] == pytest.approx(0.01)
    assert sum(summary["images"]) == 2
    assert reliability.summarise(np.array([np.nan]), np.array([1])) is None
    with pytest.raises(ValueError, match="outside 0 to 1"):
        reliability.reliability(np.array([1.5]), np.array([1]))
    with pytest.raises(ValueError, match="differ in number"):
        reliability.reliability(np.array([0.5]), np.array([1, 0]))
