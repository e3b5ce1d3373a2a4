import numpy as np
import pytest
import scipy.stats

from gxdistill.privacy.attacks import scores


def _drawn(seed, n=60, m=45, shift=0.8, levels=None):
    rng = np.random.default_rng(seed)
    members, others = rng.normal(shift, 1, n), rng.normal(0, 1, m)
    return (members, others) if levels is None else (members.round(levels), others.round(levels))


@pytest.mark.parametrize("levels", [None, 0])  # Rounded scores tie.
def test_the_area_is_that_of_mann_and_whitney(levels):
    for seed in range(5):
        members, others = _drawn(seed, levels=levels)
        u = scipy.stats.mannwhitneyu(members, others).statistic
        assert scores.auc(members, others).value == pytest.approx(u / (60 * 45), abs=1e-12)


def test_the_ends_of_the_area_solve_the_variance_of_hanley_and_mcneil():
    members, others = _drawn(0)
    area = scores.auc(members, others)
    n, m = 60, 45
    for end in (area.low, area.high):
        q1, q2 = end / (2 - end), 2 * end**2 / (1 + end)
        # Hanley & McNeil 1982, with (n + m) / 2 in place of either number, as Newcombe does.
        variance = end * (1 - end) + ((n + m) / 2 - 1) * (q1 - end**2 + q2 - end**2)
        off = abs(end - area.value) / np.sqrt(variance / (n * m))
        assert off == pytest.approx(scipy.stats.norm.ppf(0.975), rel=1e-6)


def test_the_interval_of_the_area_covers_the_true_one():
    true = scipy.stats.norm.cdf(0.8 / np.sqrt(2))
    areas = [scores.auc(*_drawn(seed, 30, 30)) for seed in range(1000)]
    covered = np.mean([area.low <= true <= area.high for area in areas])
    assert 0.935 < covered < 0.975


def test_an_area_without_overlap_has_an_interval():
    area = scores.auc(np.ones(20), np.zeros(20))
    assert (area.value, area.high) == (1, 1)
    assert 0.8 < area.low < 0.97


@pytest.mark.parametrize(("count", "total"), [(0, 9), (9, 9), (3, 50), (1, 1), (57, 100)])
def test_shares_have_the_exact_interval(count, total):
    exact = scipy.stats.binomtest(count, total).proportion_ci(0.9, "exact")
    share = scores.clopper_pearson(count, total, 0.9)
    assert share == pytest.approx((count / total, exact.low, exact.high), abs=1e-10)


def test_the_rate_is_at_the_lowest_threshold_that_the_bound_allows():
    members, others = _drawn(1, 200, 150)
    for bound in (0.01, 0.001, 0.2):
        rate = scores.rate_at(members, others, bound)
        allowed = [t for t in np.r_[-np.inf, others] if (others > t).mean() <= bound]
        expected = max((members > t).mean() for t in allowed)
        assert rate.share.value == expected
        assert rate.reached <= bound
        assert rate.share.low < expected < rate.share.high
    assert scores.rate_at(members, others, 0.001).reached == 0


def test_bounds_on_epsilon_are_those_of_another_library():
    auditing = pytest.importorskip("jax_privacy.auditing")
    for seed, shift in enumerate((0.0, 1.0, 2.0, 4.0, -2.0)):
        members, others = _drawn(seed, 80, 120, shift, levels=1)
        theirs = auditing.CanaryScoreAuditor(members, others)
        for delta in (0.0, 1e-2):
            # Theirs takes everyone at a threshold for a member, ours those above it.
            expected = theirs.epsilon_clopper_pearson(0.05, delta, one_sided=False)
            assert scores.epsilon(members, others, delta=delta) == pytest.approx(expected)
            fixed = auditing.Explicit(0.55)
            expected = theirs.epsilon_clopper_pearson(
                0.05, delta, one_sided=False, threshold_strategy=fixed
            )
            found = scores.epsilon_at(members, others, 0.54, delta=delta)
            assert found == pytest.approx(expected)


def _laplace(epsilon, seed, n=100):
    """Scores of a mechanism that is private with just this epsilon: Laplace noise on membership."""
    rng = np.random.default_rng(seed)
    return 1 + rng.laplace(0, 1 / epsilon, n), rng.laplace(0, 1 / epsilon, n)


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_bounds_on_epsilon_are_hardly_ever_above_the_true_one(epsilon):
    found = [_laplace(epsilon, seed) for seed in range(400)]
    chosen = np.array([scores.epsilon(*pair) for pair in found])
    fixed = np.array([scores.epsilon_at(*pair, 1.0) for pair in found])
    assert (chosen > epsilon).mean() <= 0.05
    assert (fixed > epsilon).mean() <= 0.05
    assert np.quantile(fixed, 0.9) > 0.4 * epsilon


def test_noise_proves_no_epsilon():
    found = [scores.epsilon(*_drawn(seed, 100, 100, 0.0)) for seed in range(200)]
    assert np.mean(found) <= 0.01


@pytest.mark.parametrize(
    ("count", "fixed", "chosen"),
    [(50, 2.6, 2.3), (100, 3.3, 3.0), (200, 4.0, 3.7), (500, 4.9, 4.6), (1000, 5.6, 5.3)],
)
def test_the_ceiling_is_what_an_attack_without_errors_proves(count, fixed, chosen):
    # log(a / (1 - a)), where a^n = 0.025, or a third of it.
    share = 0.025 ** (1 / count)
    found = scores.ceiling(count, count, chosen=False)
    assert found == pytest.approx(np.log(share / (1 - share)))
    assert round(found, 1) == fixed
    assert round(scores.ceiling(count, count, chosen=True), 1) == chosen


@pytest.mark.parametrize(("right", "guesses"), [(50, 100), (70, 100), (100, 100), (48, 50)])
def test_guesses_bound_epsilon_as_the_binomial_says(right, guesses):
    found = scores.epsilon_of_guesses(right, guesses, trials=120)
    low = scipy.stats.binomtest(right, guesses, alternative="greater").proportion_ci(0.95).low
    assert found == pytest.approx(max(np.log(low / (1 - low)), 0), abs=1e-6)


def test_guesses_with_delta_are_bounded_as_by_another_library():
    auditing = pytest.importorskip("jax_privacy.auditing")
    for right in (60, 80, 95, 100):
        theirs = auditing._epsilon_one_run(0.0, 120, 100, right, 0.05, 1e-3)
        ours = scores.epsilon_of_guesses(right, 100, trials=120, delta=1e-3)
        assert ours == pytest.approx(theirs, abs=1e-5)


@pytest.mark.parametrize(
    "call",
    [
        lambda: scores.auc(np.array([]), np.ones(3)),
        lambda: scores.auc(np.array([np.nan]), np.ones(3)),
        lambda: scores.epsilon(np.ones(3), np.ones((3, 1))),
        lambda: scores.clopper_pearson(3, 2),
        lambda: scores.clopper_pearson(0, 0),
        lambda: scores.epsilon_of_guesses(3, 2, trials=5),
        lambda: scores.rate_at(np.ones(3), np.ones(3), 1.5),
    ],
)
def test_what_is_no_score_or_count_is_refused(call):
    with pytest.raises(ValueError, match=r"score|share|shape|guesses|bound"):
        call()
