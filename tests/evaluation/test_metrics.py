import itertools
import math
import statistics

import numpy as np
import pytest
import scipy.stats

from gxdistill.evaluation import metrics


def _scores(seed, n=60, values=12):
    """Scores with many ties, and labels of both classes."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % 3 == 0).astype(int)
    return rng.integers(0, values, n) / values + 0.2 * labels, labels


def test_confusion_matrix_counts_pairs():
    rng = np.random.default_rng(0)
    predicted, labels = rng.integers(0, 4, (2, 200))  # class 4 of 5 never occurs
    expected = np.zeros((5, 5), int)
    for p, y in zip(predicted, labels, strict=True):
        expected[y, p] += 1
    np.testing.assert_array_equal(metrics.confusion_matrix(predicted, labels, 5), expected)


def test_small_integer_types_do_not_overflow():
    matrix = metrics.confusion_matrix(np.uint8([19, 0]), np.uint8([19, 19]), 20)
    assert matrix[19, 19] == 1
    assert matrix[19, 0] == 1
    assert matrix.sum() == 2


@pytest.mark.parametrize(("predicted", "labels"), [([0, 3], [0, 1]), ([0, 1], [-1, 1])])
def test_confusion_matrix_refuses_unknown_classes(predicted, labels):
    with pytest.raises(ValueError, match="classes go from 0 to 2"):
        metrics.confusion_matrix(predicted, labels, 3)


def test_balanced_accuracy_is_the_mean_recall_of_the_classes_present():
    rng = np.random.default_rng(1)
    labels = rng.choice(3, 300, p=[0.8, 0.15, 0.05])
    predicted = np.where(rng.random(300) < 0.7, labels, rng.integers(0, 4, 300))
    recalls = [np.mean(predicted[labels == k] == k) for k in range(3)]
    value = metrics.balanced_accuracy(predicted, labels, 4)
    assert value == pytest.approx(statistics.mean(recalls), rel=1e-12)
    assert metrics.balanced_accuracy(np.zeros(300, int), labels, 4) == pytest.approx(1 / 3)


def test_balanced_accuracy_of_nothing_is_undefined():
    empty = np.zeros(0, int)
    with pytest.raises(metrics.UndefinedError, match="no examples"):
        metrics.balanced_accuracy(empty, empty, 3)


def test_harmonic_mean():
    rng = np.random.default_rng(2)
    a, b = rng.random((2, 50))
    expected = [statistics.harmonic_mean(pair) for pair in zip(a, b, strict=True)]
    np.testing.assert_allclose(metrics.harmonic_mean(a, b), expected, rtol=1e-12)
    assert metrics.harmonic_mean(0.0, 0.0) == 0
    assert metrics.harmonic_mean(0.0, 1.0) == 0
    assert metrics.harmonic_mean(0.5, 1.0) == pytest.approx(2 / 3)


def test_sensitivity_and_specificity_leave_undecidable_images_out():
    decisions = np.array([1, 0, 1, -1, 0, 0, 1, -1, 0])
    labels = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0])
    assert metrics.sensitivity_specificity(decisions, labels) == (2 / 3, 3 / 4)


def test_rates_at_thresholds_match_a_loop():
    scores, labels = _scores(3)
    thresholds = np.array([[0.5, -1.0], [scores[7], 9.0]])
    sensitivity, specificity = metrics.sensitivity_specificity_at(scores, labels, thresholds)
    assert sensitivity.shape == (2, 2)
    for at in np.ndindex(2, 2):
        decisions = [int(score >= thresholds[at]) for score in scores]
        hits = sum(d == y == 1 for d, y in zip(decisions, labels, strict=True))
        spared = sum(d == y == 0 for d, y in zip(decisions, labels, strict=True))
        assert sensitivity[at] == pytest.approx(hits / sum(labels == 1))
        assert specificity[at] == pytest.approx(spared / sum(labels == 0))
        both = metrics.sensitivity_specificity(np.array(decisions), labels)
        assert both == (sensitivity[at], specificity[at])


@pytest.mark.parametrize("seed", range(5))
def test_auc_is_the_mann_whitney_statistic(seed):
    scores, labels = _scores(seed)
    u = scipy.stats.mannwhitneyu(scores[labels == 1], scores[labels == 0]).statistic
    pairs = (labels == 1).sum() * (labels == 0).sum()
    assert metrics.auc(scores, labels) == pytest.approx(u / pairs, rel=1e-12)


def test_auc_of_plain_cases():
    labels = np.array([0, 0, 1, 1])
    assert metrics.auc(np.array([1, 2, 3, 4]), labels) == 1
    assert metrics.auc(np.array([4, 3, 2, 1]), labels) == 0
    assert metrics.auc(np.full(4, 7.0), labels) == 0.5
    assert metrics.auc(np.array([-np.inf, 0, 0, np.inf]), labels) == 7 / 8


def test_auc_of_two_normals_is_known():
    rng = np.random.default_rng(4)
    labels = np.arange(200_000) % 2
    value = metrics.auc(rng.normal(size=200_000) + labels, labels)
    # P(x1 > x0) = Phi(1 / sqrt 2); the standard error is about 1e-3
    assert value == pytest.approx(statistics.NormalDist().cdf(math.sqrt(0.5)), abs=4e-3)


@pytest.mark.parametrize("seed", range(3))
def test_roc_curve_joins_the_corners_and_encloses_the_auc(seed):
    scores, labels = _scores(seed)
    false_positive, true_positive, thresholds = metrics.roc_curve(scores, labels)
    assert (false_positive[0], true_positive[0], thresholds[0]) == (0, 0, np.inf)
    assert (false_positive[-1], true_positive[-1], thresholds[-1]) == (1, 1, scores.min())
    assert (np.diff(thresholds) < 0).all()
    area = np.trapezoid(true_positive, false_positive)
    assert area == pytest.approx(metrics.auc(scores, labels), rel=1e-12)


_RANKED = [
    metrics.auc,
    metrics.roc_curve,
    lambda scores, labels: metrics.sensitivity_specificity_at(scores, labels, 0.5),
]


@pytest.mark.parametrize("measure", _RANKED)
def test_scores_and_labels_are_checked(measure):
    with pytest.raises(ValueError, match="NaN"):
        measure(np.array([0.1, np.nan, 0.3]), np.array([0, 1, 1]))
    with pytest.raises(ValueError, match="other than 0"):
        measure(np.array([0.1, 0.2, 0.3]), np.array([0, 1, 2]))
    with pytest.raises(ValueError, match="do not fit"):
        measure(np.array([0.1, 0.2, 0.3]), np.array([0, 1]))
    with pytest.raises(metrics.UndefinedError, match="3 are positive and 0 negative"):
        measure(np.array([0.1, 0.2, 0.3]), np.array([1, 1, 1]))


def test_decisions_are_checked():
    with pytest.raises(ValueError, match="Apply a threshold"):
        metrics.sensitivity_specificity(np.array([0.3, 1.0]), np.array([0, 1]))
    with pytest.raises(metrics.UndefinedError, match="a class is absent"):
        metrics.sensitivity_specificity(np.array([1, 0, -1]), np.array([1, 1, 0]))


def test_bootstrap_of_a_rate_has_the_binomial_spread():
    labels = np.repeat([1, 0], [40, 100])
    decisions = np.repeat([1, 0, 1, 0], [30, 10, 20, 80])
    values = metrics.bootstrap(
        lambda d, y: np.array(metrics.sensitivity_specificity(d, y)),
        decisions,
        labels,
        patients=np.arange(140),
        strata=labels,
        repeats=4000,
    )
    # stratified: 40 draws with chance 3/4, 100 with chance 4/5
    spread = np.sqrt([0.75 * 0.25 / 40, 0.8 * 0.2 / 100])
    np.testing.assert_allclose(values.mean(axis=0), [0.75, 0.8], atol=5e-3)
    np.testing.assert_allclose(values.std(axis=0), spread, rtol=0.05)


def test_interval_is_the_percentiles_of_every_possible_resample():
    values, draws = np.array([1.0, 2.0, 4.0, 8.0]), itertools.product(range(4), repeat=4)
    exact = [values[list(draw)].mean() for draw in draws]
    interval = metrics.bootstrap_interval(
        np.mean, values, patients=np.arange(4), level=0.8, repeats=20_000
    )
    np.testing.assert_allclose(interval, np.quantile(exact, [0.1, 0.9]), atol=0.26)  # one step


def test_images_of_a_patient_are_drawn_together():
    patients = np.array(["b", "a", "b", "c", "a", "b"])
    images = np.array([0, 1, 2, 3, 4, 5])
    seen = []
    metrics.bootstrap(
        lambda drawn: seen.append(sorted(drawn)) or 0.0, images, patients=patients, repeats=50
    )
    groups = {"a": [1, 4], "b": [0, 2, 5], "c": [3]}
    possible = [
        sorted(image for patient in draw for image in groups[patient])
        for draw in itertools.combinations_with_replacement("abc", 3)
    ]
    assert seen[0] == [0, 1, 2, 3, 4, 5]  # the cohort itself, which must be measurable
    assert all(draw in possible for draw in seen)
    assert len({tuple(draw) for draw in seen}) > 5


def test_strata_fix_the_number_of_patients_of_each_class():
    labels = np.array([0, 0, 0, 1, 0, 1, 1])  # patient 2 has an image of each class
    patients = np.array([0, 0, 1, 2, 2, 3, 4])
    free, fixed = (
        metrics.bootstrap(np.sum, labels, patients=patients, strata=strata, repeats=100)
        for strata in (None, labels)
    )
    assert set(fixed) == {3}
    assert len(set(free)) > 3


def test_bootstrap_depends_on_the_seed_and_not_on_the_order_of_images():
    scores, labels = _scores(5)
    patients = np.array([f"p{i % 40}" for i in range(60)])
    order = np.random.default_rng(0).permutation(60)

    def interval(rows, seed):
        return metrics.bootstrap_interval(
            metrics.auc,
            scores[rows],
            labels[rows],
            patients=patients[rows],
            strata=labels[rows],
            repeats=200,
            seed=seed,
        )

    everyone = np.arange(60)
    assert interval(everyone, 0) == interval(everyone, 0) == interval(order, 0)
    assert interval(everyone, 0) != interval(everyone, 1)


def test_undefined_resamples_are_skipped_and_countable():
    scores, labels = np.arange(4.0), np.array([0, 0, 0, 1])
    values = metrics.bootstrap(
        metrics.auc, scores, labels, patients=np.arange(4), repeats=4000, seed=1
    )
    # without strata a class is missing when the positive is drawn never or always
    chance = (3 / 4) ** 4 + (1 / 4) ** 4
    assert np.isnan(values).mean() == pytest.approx(chance, abs=0.03)
    assert metrics.percentile_interval(values) == (1, 1)


def test_bootstrap_errors():
    scores, labels = np.arange(4.0), np.array([0, 0, 1, 1])
    with pytest.raises(metrics.UndefinedError, match="a class is absent"):
        metrics.bootstrap(metrics.auc, scores, np.zeros(4), patients=labels)
    with pytest.raises(ValueError, match="does not fit 3 patient ids"):
        metrics.bootstrap(metrics.auc, scores, labels, patients=labels[:3])
    with pytest.raises(ValueError, match="`repeats` is 0"):
        metrics.bootstrap(metrics.auc, scores, labels, patients=labels, repeats=0)
    with pytest.raises(metrics.UndefinedError, match="every resample"):
        metrics.percentile_interval(np.full((10, 2), np.nan))
    with pytest.raises(ValueError, match="`level` is 95"):
        metrics.percentile_interval(np.zeros(10), level=95)


def _coverage(patients, trials=200):
    """Share of cohorts of 30 patients with 4 like images each whose interval covers the truth."""
    rng = np.random.default_rng(6)
    covered = 0
    for _ in range(trials):
        images = np.repeat(rng.normal(size=30), 4) + 0.3 * rng.normal(size=120)
        low, high = metrics.bootstrap_interval(np.mean, images, patients=patients, repeats=200)
        covered += low <= 0 <= high
    return covered / trials


def test_interval_covers_the_truth_only_if_patients_are_resampled():
    assert 0.89 < _coverage(np.repeat(np.arange(30), 4)) < 0.98
    assert _coverage(np.arange(120)) < 0.75  # each image a patient: half as wide as it should be


def test_interval_of_the_auc_covers_the_known_area():
    rng = np.random.default_rng(7)
    labels, truth = np.arange(80) % 2, statistics.NormalDist().cdf(math.sqrt(0.5))
    covered = 0
    for _ in range(150):
        scores = rng.normal(size=80) + labels
        low, high = metrics.bootstrap_interval(
            metrics.auc, scores, labels, patients=np.arange(80), strata=labels, repeats=200
        )
        covered += low <= truth <= high
    assert 0.88 < covered / 150 < 0.985
