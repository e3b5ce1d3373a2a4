import math

import numpy as np
import pytest
import scipy.stats

from gxdistill.privacy.attacks import membership, scores


def _toy(seed, *, gap, shadows=16, patients=400):
    """Statistics that are Gaussian about each patient's own level, higher by `gap` for members."""
    rng = np.random.default_rng(seed)
    level = rng.normal(0, 3, patients)
    members = rng.random((shadows + 1, patients)) < 0.5
    fit = level + gap * members + rng.normal(size=members.shape)
    return fit[0], fit[1:], members[1:], members[0]


@pytest.mark.parametrize("attack", [membership.lira, membership.rmia])
@pytest.mark.parametrize("gap", [1.0, 2.0])
def test_attacks_on_gaussians_have_the_power_that_is_known(attack, gap):
    areas = []
    for seed in range(12):
        target, shadows, members, truth = _toy(seed, gap=gap)
        told = attack(target, shadows, members)
        areas.append(scores.auc(told[truth], told[~truth]).value)
    # Of two Gaussians `gap` apart; each patient's own level is known from 16 shadows.
    known = scipy.stats.norm.cdf(gap / math.sqrt(2 * (1 + 1 / 16)))
    assert np.mean(areas) == pytest.approx(known, abs=0.015)


@pytest.mark.parametrize("attack", [membership.lira, membership.rmia, membership.without_shadows])
def test_where_nothing_leaks_the_area_is_a_half(attack):
    areas = []
    for seed in range(30):
        target, shadows, members, truth = _toy(seed, gap=0.0, patients=100)
        told = attack(target, shadows, members)
        areas.append(scores.auc(told[truth], told[~truth]))
    assert np.mean([area.value for area in areas]) == pytest.approx(0.5, abs=0.03)
    assert sum(area.low <= 0.5 <= area.high for area in areas) >= 26


def test_without_shadows_the_patients_own_levels_hide_the_gap():
    target, shadows, members, truth = _toy(0, gap=2.0)
    plain = membership.without_shadows(target, shadows, members)
    told = membership.lira(target, shadows, members)
    of_plain, of_told = (scores.auc(x[truth], x[~truth]).value for x in (plain, told))
    assert of_told > of_plain + 0.15


def test_with_many_shadows_the_ratio_is_that_of_the_paper():
    # Gaps that differ from patient to patient: nothing is drawn towards their mean.
    rng = np.random.default_rng(0)
    members = np.tile(np.arange(2000)[:, None] % 2 == 0, 30)
    gaps, level = rng.normal(1, 2, 30), rng.normal(0, 3, 30)
    shadows = level + gaps * members + rng.normal(size=members.shape)
    target = level + 0.5 * gaps + rng.normal(size=30)
    inside, outside = shadows[::2], shadows[1::2]
    expected = scipy.stats.norm.logpdf(target, inside.mean(0), inside.std(0, ddof=1))
    expected -= scipy.stats.norm.logpdf(target, outside.mean(0), outside.std(0, ddof=1))
    found = membership.lira(target, shadows, members)
    np.testing.assert_allclose(found, expected, atol=0.25)


def test_rmia_counts_as_a_loop_does():
    rng = np.random.default_rng(1)
    target, shadows = -rng.exponential(size=9), -rng.exponential(size=(5, 9))
    members = rng.random((5, 9)) < 0.5
    members[:, 0] = True  # Of one side only.
    gamma = 1.3
    risen = []
    for i in range(9):
        sides = [
            np.mean([math.exp(shadows[k, i]) for k in range(5) if members[k, i] == side])
            for side in (True, False)
            if (members[:, i] == side).any()
        ]
        risen.append(math.exp(target[i]) / np.mean(sides))
    expected = [
        np.mean([risen[i] / risen[j] >= gamma for j in range(9) if j != i]) for i in range(9)
    ]
    found = membership.rmia(target, shadows, members, gamma=gamma)
    np.testing.assert_allclose(found, expected)


def test_a_patient_whom_all_shadows_held_is_told_by_the_gap_of_the_others():
    target, shadows, members, _ = _toy(3, gap=3.0, patients=200)
    always = members.copy()
    always[:, 0] = True
    level = shadows[:, 0] - 3.0 * members[:, 0]
    shadows[:, 0] = level + 3.0
    for value, sign in ((level.mean() + 3, 1), (level.mean(), -1)):
        target[0] = value
        assert np.sign(membership.lira(target, shadows, always)[0]) == sign


def test_each_shadow_is_attacked_by_the_others_alone():
    _, shadows, members, _ = _toy(2, gap=1.0, shadows=5, patients=50)
    told = membership.each_left_out(membership.lira, shadows, members)
    kept = [0, 1, 2, 4]
    expected = membership.lira(shadows[3], shadows[kept], members[kept])
    np.testing.assert_array_equal(told[3], expected)


@pytest.mark.parametrize("attack", [membership.lira, membership.rmia])
def test_shapes_that_do_not_fit_and_shadows_of_one_side_are_refused(attack):
    target, shadows, members, _ = _toy(0, gap=1.0, patients=5)
    with pytest.raises(ValueError, match="do not fit"):
        attack(target[:4], shadows, members)
    with pytest.raises(ValueError, match="everyone or nobody"):
        attack(target, shadows, np.ones_like(members))
