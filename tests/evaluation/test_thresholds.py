import numpy as np
import pytest

from gxdistill.evaluation import decision, metrics, thresholds


def test_a_share_of_the_images_is_called_positive():
    scores = np.r_[np.random.default_rng(0).permutation(np.linspace(0.1, 0.9, 101)), np.nan]
    for share in (0.1, 0.42, 0.5, 0.9):
        threshold = thresholds.by_share(scores, share)
        expected = sum(s >= threshold.tau for s in scores if s == s) / 101
        assert thresholds.share_positive(scores, threshold.tau) == pytest.approx(expected)
        assert abs(expected - share) <= 1 / 101
        assert threshold.low < threshold.tau < threshold.high
        assert threshold.images == 101


def test_the_interval_of_a_quantile_covers_as_often_as_it_says():
    rng = np.random.default_rng(1)
    drawn = [thresholds.by_share(rng.uniform(size=80), 0.4, seed=i) for i in range(150)]
    covered = np.mean([one.low <= 0.6 <= one.high for one in drawn])
    assert 0.88 < covered <= 1


def test_another_machine_that_shifts_all_scores_is_followed():
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 2, 400)
    scores = 0.3 * labels + 0.15 * rng.standard_normal(400)
    tau = decision.choose_threshold(scores, labels)
    share = thresholds.share_positive(scores, tau)
    shifted = 0.2 + 0.4 * scores
    there = thresholds.by_share(shifted, share).tau
    rates = metrics.sensitivity_specificity_at(shifted, labels, np.array([there, tau]))
    followed, kept = metrics.harmonic_mean(*rates)
    assert followed == pytest.approx(
        metrics.harmonic_mean(*metrics.sensitivity_specificity_at(scores, labels, np.array([tau])))[
            0
        ],
        abs=0.01,
    )
    assert kept < followed - 0.2


def test_labelled_images_give_the_threshold_of_the_best_harmonic_mean():
    rng = np.random.default_rng(3)
    labels = np.repeat([0, 1], 40)
    scores = np.where(labels, rng.normal(0.6, 0.1, 80), rng.normal(0.4, 0.1, 80))
    threshold = thresholds.by_labels(scores, labels)
    assert threshold.tau == decision.choose_threshold(scores, labels)
    assert threshold.low <= threshold.tau <= threshold.high
    assert threshold.low > 0.4
    assert threshold.high < 0.6


def test_nothing_to_go_by_is_refused():
    with pytest.raises(ValueError, match="No image has a score"):
        thresholds.by_share(np.array([np.nan]), 0.5)
    with pytest.raises(ValueError, match="share"):
        thresholds.by_share(np.array([0.1, 0.2]), 1.5)
    with pytest.raises(metrics.UndefinedError):
        thresholds.by_labels(np.array([0.1, 0.2]), np.array([1, 1]))
