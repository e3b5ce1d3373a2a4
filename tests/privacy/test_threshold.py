import jax
import numpy as np
import pytest

from gxdistill.evaluation import decision
from gxdistill.privacy import threshold
from gxdistill.privacy.ledger import BudgetError, Ledger


def _scores(rng, count):
    labels = rng.integers(0, 2, count)
    scores = np.clip(rng.normal(0.35 + 0.3 * labels, 0.15), 0, 1)
    scores[rng.random(count) < 0.1] = np.nan
    return scores, labels, np.array([f"p{i}" for i in rng.integers(0, count // 3, count)])


def test_a_patient_counts_for_the_average_of_their_images():
    scores = np.array([0.0, 0.05, 0.999, 1.0, np.nan, 0.5])
    labels = np.array([0, 1, 1, 1, 0, 0])
    rows = threshold.patient_histograms(scores, labels, np.array(list("aabbbc")))
    assert rows.shape == (3, 2, 20)
    expected = np.zeros((3, 2, 20))
    expected[0, 0, 0] = expected[0, 1, 1] = 1 / 2
    expected[1, 1, 19] = 2 / 3
    expected[2, 0, 10] = 1
    np.testing.assert_allclose(rows, expected, rtol=1e-6)


def test_no_patient_moves_the_histogram_by_more_than_one():
    rng = np.random.default_rng(0)
    for _ in range(1000):
        rows = threshold.patient_histograms(*_scores(rng, rng.integers(3, 30)))
        assert np.sqrt((rows**2).sum(axis=(1, 2))).max() <= 1 + 1e-6


def test_without_noise_the_best_edge_is_chosen():
    rng = np.random.default_rng(1)
    scores, labels, _ = _scores(rng, 3000)
    alone = np.arange(3000).astype(str)
    counts = threshold.patient_histograms(scores, labels, alone).sum(axis=0)
    tau, share = threshold.choose(counts)
    kept = ~np.isnan(scores)
    positive, truth = scores[kept] >= tau, labels[kept] == 1
    assert share == pytest.approx(positive.mean())

    def mean(tau):
        sen, spe = (scores[kept] >= tau)[truth].mean(), (scores[kept] < tau)[~truth].mean()
        return 2 * sen * spe / (sen + spe)

    assert mean(tau) == pytest.approx(max(map(mean, np.arange(20) / 20)))
    assert mean(tau) > mean(decision.choose_threshold(scores, labels)) - 0.02


def test_a_release_is_noisy_booked_and_within_the_budget():
    rows = threshold.patient_histograms(*_scores(np.random.default_rng(2), 300))
    ledger = Ledger(delta=1e-3, budget=1.0)
    counts, after = threshold.release_histogram(jax.random.key(0), rows, 3.0, ledger)
    assert (after.events[0].sensitivity, after.events[0].noise_multiplier) == (1.0, 3.0)
    noise = counts - rows.sum(axis=0)
    assert 2 < noise.std() < 4
    tau, share = threshold.choose(counts)
    assert 0 <= tau < 1
    assert 0 <= share <= 1
    with pytest.raises(BudgetError):
        threshold.release_histogram(jax.random.key(0), rows, 2.0, after)
