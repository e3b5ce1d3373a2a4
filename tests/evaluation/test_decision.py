import json

import numpy as np
import pytest

from gxdistill.evaluation import decision, metrics, zones

SHARES = ("counts", "soft")  # The rules of which a score is a share of patches.
CORNERS = np.stack(np.divmod(np.arange(40), 8), axis=1)
WEIGHTS = tuple(np.linspace(-1, 2, zones.WEIGHTS).tolist())


def _score(rule, probabilities):
    """The score by any rule."""
    return decision.score(rule, probabilities, corners=CORNERS, weights=WEIGHTS)


def _patches(seed, images=30, patches=40):
    """Probabilities of I, N and P, float32; in the first image every patch is irrelevant."""
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet([1.0, 0.7, 0.7], (images, patches)).astype(np.float32)
    probabilities[0] = [0.6, 0.1, 0.3]
    return probabilities


def test_image_scores_are_the_share_of_positive_patches():
    classes = np.array([[0, 1, 2, 2], [0, 0, 0, 0], [1, 1, 0, 1], [2, 0, 0, 0]])
    scores = decision.image_scores(classes)
    assert scores.dtype == np.float64
    np.testing.assert_array_equal(scores, [2 / 3, np.nan, 0, 1])


def test_image_scores_refuse_other_classes():
    with pytest.raises(ValueError, match="other than 0"):
        decision.image_scores(np.array([[0, 3]]))


@pytest.mark.parametrize("rule", SHARES)
def test_scores_match_a_loop_over_patches(rule):
    probabilities = _patches(0)
    expected = []
    for image in probabilities:
        n, p = 0.0, 0.0
        for patch in image.tolist():
            if patch.index(max(patch)) == 0:
                continue
            n += patch[1] if rule == "soft" else patch.index(max(patch)) == 1
            p += patch[2] if rule == "soft" else patch.index(max(patch)) == 2
        expected.append(p / (n + p) if n + p else np.nan)
    np.testing.assert_allclose(decision.score(rule, probabilities), expected, rtol=1e-12)
    assert np.isnan(expected[0])


@pytest.mark.parametrize("rule", decision.RULES)
def test_without_masks_no_patch_is_irrelevant(rule):
    two = _patches(1)[..., 1:]
    three = np.concatenate([np.zeros_like(two[..., :1]), two], axis=-1)
    np.testing.assert_array_equal(_score(rule, two), _score(rule, three))
    assert not np.isnan(_score(rule, two)).any()


@pytest.mark.parametrize("rule", decision.RULES)
@pytest.mark.parametrize("classes", [2, 3])
def test_images_of_a_diverged_network_are_undecidable(rule, classes):
    probabilities = _patches(2)[..., -classes:]
    probabilities[5, 7] = np.nan
    sound = _score(rule, np.nan_to_num(probabilities))
    sound[5] = np.nan
    np.testing.assert_array_equal(_score(rule, probabilities), sound)


def test_score_is_checked():
    with pytest.raises(ValueError, match="'counts', 'soft'"):
        decision.score("votes", _patches(0))
    with pytest.raises(ValueError, match="one of 2, 3"):
        decision.score("soft", np.zeros((1, 2, 4)))
    with pytest.raises(ValueError, match=r"len\(weights\)"):
        decision.score("zones", _patches(0), corners=CORNERS)
    with pytest.raises(ValueError, match="give `corners`"):
        decision.score("zones", _patches(0), weights=WEIGHTS)


def test_scores_by_zones_are_chances_of_what_lies_in_them():
    probabilities = _patches(3)
    odds = zones.log_odds(probabilities, CORNERS)
    expected = 1 / (1 + np.exp(-(odds * WEIGHTS[:-1]).sum(axis=1) - WEIGHTS[-1]))
    np.testing.assert_allclose(_score("zones", probabilities), expected, rtol=1e-9)
    assert np.isnan(expected[0])


def test_weights_are_the_mean_of_those_of_each_network_on_what_it_decides():
    probabilities, labels = np.stack([_patches(4), _patches(5)]), np.arange(30) % 2
    each = [
        zones.fit(zones.log_odds(of_network[1:], CORNERS), labels[1:])
        for of_network in probabilities
    ]
    weights = decision.fit_weights("zones", probabilities, labels, CORNERS)
    np.testing.assert_allclose(weights, np.mean(each, axis=0), rtol=1e-12)
    for rule in SHARES:
        assert decision.fit_weights(rule, probabilities, labels, CORNERS) == ()


def _hm(scores, labels, tau):
    """Harmonic mean of sensitivity and specificity, by counting."""
    pairs = [(s, y) for s, y in zip(scores, labels, strict=True) if not np.isnan(s)]
    positive, negative = ([s for s, y in pairs if y == k] for k in (1, 0))
    sensitivity = sum(s >= tau for s in positive) / len(positive)
    specificity = sum(s < tau for s in negative) / len(negative)
    total = sensitivity + specificity
    return 2 * sensitivity * specificity / total if total else 0.0


def _brute_force(scores, labels):
    """Middle of the widest run of a fine grid on which the mean HM is highest, and that HM."""
    grid = (np.arange(2000) + 0.5) / 2000
    means = np.array([np.mean([_hm(row, labels, tau) for row in scores]) for tau in grid])
    best = np.flatnonzero(means > means.max() - 1e-9)
    runs = np.split(best, np.flatnonzero(np.diff(best) > 1) + 1)
    widest = max(runs, key=len)
    return (grid[widest[0]] + grid[widest[-1]]) / 2, means.max()


@pytest.mark.parametrize("networks", [1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_threshold_matches_a_search_of_a_fine_grid(seed, networks):
    rng = np.random.default_rng(seed)
    labels = np.arange(24) % 2
    scores = (rng.integers(0, 30, (networks, 24)) + 8 * labels) / 40  # many ties
    scores[rng.random(scores.shape) < 0.1] = np.nan
    tau, hm = _brute_force(scores, labels)
    chosen = decision.choose_threshold(scores if networks > 1 else scores[0], labels)
    assert chosen == pytest.approx(tau, abs=1e-3)
    assert np.mean([_hm(row, labels, chosen) for row in scores]) == pytest.approx(hm, rel=1e-12)


def test_threshold_of_separable_scores_is_the_middle_of_the_gap():
    scores = np.array([0.1, 0.2, np.nan, 0.6, 0.9, np.nan])
    labels = np.array([0, 0, 1, 1, 1, 0])
    assert decision.choose_threshold(scores, labels) == pytest.approx(0.4)


def test_of_best_intervals_the_widest_is_taken():
    # HM is 2/3 in (0.1, 0.2] (sen 1, spe 1/2) and in (0.3, 0.9] (sen 1/2, spe 1), 1/2 between
    scores, labels = np.array([0.1, 0.2, 0.3, 0.9]), np.array([0, 1, 0, 1])
    assert decision.choose_threshold(scores, labels) == pytest.approx(0.6)
    assert decision.choose_threshold(1 - scores, 1 - labels) == pytest.approx(0.4)


def test_neighbouring_intervals_of_equal_hm_are_one():
    # a positive and a negative at 0.5: (sen, spe) turns from (1, 1/2) to (1/2, 1), HM stays
    scores, labels = np.array([0.2, 0.5, 0.5, 0.9]), np.array([0, 0, 1, 1])
    tau = decision.choose_threshold(scores, labels)
    assert tau == pytest.approx(0.55)
    assert _hm(scores, labels, tau) == pytest.approx(2 / 3)


@pytest.mark.parametrize("low", [0.3, 1 / 3, 0.7])
def test_threshold_separates_the_closest_of_floats(low):
    scores = np.array([low, np.nextafter(low, 1)])
    tau = decision.choose_threshold(scores, np.array([0, 1]))
    np.testing.assert_array_equal(decision.decide(scores, tau), [0, 1])


def test_threshold_of_like_scores_calls_every_image_positive():
    scores = np.full(4, 0.7)
    tau = decision.choose_threshold(scores, np.array([0, 1, 0, 1]))
    np.testing.assert_array_equal(decision.decide(scores, tau), [1, 1, 1, 1])


@pytest.mark.parametrize(
    "scores",
    [[0.1, 0.2, np.nan], [[0.1, 0.2, 0.3], [0.1, 0.2, np.nan]], [np.nan] * 3, [np.nan, np.nan, 1]],
)
def test_threshold_is_refused_where_a_class_is_absent(scores):
    with pytest.raises(metrics.UndefinedError, match="a class is absent"):
        decision.choose_threshold(np.array(scores), np.array([0, 0, 1]))


def test_threshold_needs_a_label_for_each_image():
    with pytest.raises(ValueError, match="broadcast"):
        decision.choose_threshold(np.array([0.1, 0.2, 0.3]), np.array([0, 1]))


def test_decisions():
    scores = np.array([0.4, 0.5, 0.6, np.nan])
    decisions = decision.decide(scores, 0.5)
    assert decisions.dtype.kind == "i"
    np.testing.assert_array_equal(decisions, [0, 1, 1, -1])


def _cohort(seed=0):
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], [50, 30])
    scores = np.clip(rng.normal(0.4 + 0.2 * labels, 0.15), 0, 1)
    scores[[3, 60, 61]] = np.nan
    return scores, labels, np.array([f"p{i // 2}" for i in range(80)])  # two images a patient


def test_summary_agrees_with_the_measures_one_by_one():
    scores, labels, patients = _cohort()
    summary = decision.summarise(scores, labels, 0.5, patients=patients, repeats=300, seed=5)
    assert json.loads(json.dumps(summary)) == summary
    assert (summary["undecidable"], summary["n"], summary["skipped"]) == (3, 80, 0)

    decided = ~np.isnan(scores)
    scores, labels, patients = scores[decided], labels[decided], patients[decided]
    decisions = decision.decide(scores, 0.5)
    one_by_one = {
        "sen": (lambda d, y: metrics.sensitivity_specificity(d, y)[0], decisions),
        "spe": (lambda d, y: metrics.sensitivity_specificity(d, y)[1], decisions),
        "hm": (lambda d, y: _hm(d, y, 1), decisions),
        "auc": (metrics.auc, scores),
    }
    for name, (statistic, values) in one_by_one.items():
        low, high = metrics.bootstrap_interval(
            statistic, values, labels, patients=patients, strata=labels, repeats=300, seed=5
        )
        expected = {"value": statistic(values, labels), "low": low, "high": high}
        assert summary[name] == pytest.approx(expected, rel=1e-12)
        assert low < expected["value"] < high


@pytest.mark.parametrize("scores", [[0.1, 0.2, np.nan, np.nan], [np.nan] * 4])
def test_summary_without_a_class_has_no_figures(scores):
    summary = decision.summarise(
        np.array(scores), np.array([0, 0, 1, 1]), 0.5, patients=np.arange(4), repeats=50
    )
    nothing = {"value": None, "low": None, "high": None}
    assert all(summary[name] == nothing for name in ("sen", "spe", "hm", "auc"))
    assert summary["undecidable"] == np.isnan(scores).sum()
    assert (summary["n"], summary["skipped"]) == (4, 50)


def test_summary_counts_the_resamples_that_lack_a_class():
    # the only negative image belongs to a patient who also has a positive one
    scores, labels = np.array([0.2, 0.9, 0.8, 0.7]), np.array([0, 1, 1, 1])
    patients = np.array(["a", "a", "b", "c"])
    summary = decision.summarise(scores, labels, 0.5, patients=patients, repeats=3000)
    assert summary["skipped"] / 3000 == pytest.approx((2 / 3) ** 3, abs=0.03)
    assert summary["auc"] == {"value": 1, "low": 1, "high": 1}
