import numpy as np
import pytest
import scipy.stats

from gxdistill.data.phantom import phantom_cohort
from gxdistill.privacy.attacks import canaries


@pytest.fixture(scope="module")
def cohort():
    return phantom_cohort(0, patients=16, size=32)


def test_canaries_are_mirrored_patients_with_one_thing_changed_each(cohort):
    planted, canary = canaries.plant(cohort, np.random.default_rng(0), each=2, copies=3)
    assert canary.tolist() == [0, 1, 2, 3, 4, 4, 4, 5, 5, 5]
    assert len(set(planted.patients)) == 10
    assert not set(planted.patients) & set(cohort.patients)
    originals = {image.tobytes(): i for i, image in enumerate(cohort.images)}
    for i, number in enumerate(canary):
        kind = canaries.KINDS[number // 2]
        image = planted.images[i][:, ::-1]
        image = 255 - image if kind == "outlier" else image
        source = originals[image.tobytes()]
        np.testing.assert_array_equal(planted.masks[i][:, ::-1], cohort.masks[source])
        changed = planted.labels[i] != cohort.labels[source]
        assert changed == (kind == "mislabelled")
    both = canaries.concatenate([cohort, planted])
    assert len(both.images) == len(both.masks) == len(both.names) == 26
    with pytest.raises(ValueError, match="cannot be made of 16 patients"):
        canaries.plant(cohort, np.random.default_rng(0), each=6)


def test_coins_that_show_are_guessed_and_bound_epsilon_as_the_binomial_does():
    rng = np.random.default_rng(0)
    coins = rng.random((12, 20)) < 0.5
    statistics = 10.0 * coins + rng.normal(size=coins.shape)
    found = canaries.count(canaries.ratios(statistics, coins), coins[6:])
    assert (found.right, found.guesses, found.coins) == (120, 120, 120)
    low = scipy.stats.binomtest(120, 120, alternative="greater").proportion_ci(0.95).low
    assert found.epsilon == found.ceiling == pytest.approx(np.log(low / (1 - low)), abs=1e-6)


def test_coins_that_do_not_show_hardly_ever_prove_anything():
    rng, found = np.random.default_rng(1), []
    for _ in range(400):
        coins = rng.random((8, 6)) < 0.5
        told = canaries.ratios(rng.normal(size=coins.shape), coins)
        found.append(canaries.count(told, coins[4:]))
    assert np.mean([guesses.epsilon > 0 for guesses in found]) <= 0.05
    right, guesses = (sum(getattr(g, name) for g in found) for name in ("right", "guesses"))
    assert right == pytest.approx(guesses / 2, abs=4 * np.sqrt(guesses / 4))


def test_where_all_earlier_coins_fell_on_one_side_none_is_guessed():
    coins = np.array([[True], [True], [False], [True]])
    told = canaries.ratios(np.array([[3.0], [2.9], [1.1], [3.1]]), coins)
    assert told.tolist() == [[0], [0]]
    found = canaries.count(told, coins[2:])
    assert (found.guesses, found.coins, found.epsilon) == (0, 2, 0)
