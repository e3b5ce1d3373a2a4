import numpy as np
import pytest

from gxdistill.data.splits import check_splits, draw_splits
from gxdistill.errors import UserError


def _patients(seed=0, n=300):
    """Images of n patients, one to four each, of two labels and three sites of unequal size."""
    rng = np.random.default_rng(seed)
    repeats = rng.integers(1, 5, n)
    patients = np.repeat([f"p{i}" for i in range(n)], repeats)
    sites = np.repeat(rng.choice(["a", "b", "c"], n, p=[0.7, 0.2, 0.1]), repeats)
    return rng.integers(0, 2, len(patients)), patients, sites


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_each_stratum_gives_the_nearest_number_of_whole_patients(share):
    labels, patients, sites = _patients()
    splits = draw_splits(labels, patients, sites, test_share=share, seed=3)
    strata = {}
    for patient in set(patients):
        rows = patients == patient
        assert len(set(splits[rows])) == 1
        stratum = (labels[rows].max(), sites[rows][0])
        strata.setdefault(stratum, []).append(splits[rows][0] == "test")
    assert len(strata) == 6
    for test in strata.values():
        assert abs(sum(test) - share * len(test)) <= 0.5


def test_the_draw_depends_on_the_seed_and_not_on_the_order():
    labels, patients, sites = _patients()
    splits = draw_splits(labels, patients, sites, test_share=0.25, seed=0)
    order = np.random.default_rng(1).permutation(len(labels))
    again = draw_splits(labels[order], patients[order], sites[order], test_share=0.25, seed=0)
    np.testing.assert_array_equal(again, splits[order])
    other = draw_splits(labels, patients, sites, test_share=0.25, seed=1)
    assert (other != splits).any()


def test_a_patient_more_moves_at_most_one_other():
    labels, patients, sites = _patients()
    splits = draw_splits(labels, patients, sites, test_share=0.25, seed=0)
    grown = draw_splits(
        np.append(labels, 1),
        np.append(patients, "new"),
        np.append(sites, "a"),
        test_share=0.25,
        seed=0,
    )
    assert len(set(patients[grown[:-1] != splits])) <= 1


def test_a_share_of_zero_or_one_is_taken_at_its_word():
    labels, patients, sites = _patients()
    assert set(draw_splits(labels, patients, sites, test_share=0.0, seed=0)) == {"train"}
    assert set(draw_splits(labels, patients, sites, test_share=1.0, seed=0)) == {"test"}


def test_strata_too_small_to_spare_a_patient_are_refused():
    with pytest.raises(UserError, match=r"2 patients in 2 strata .*Raise `test_share`"):
        draw_splits(
            np.array([0, 1]),
            np.array(["a", "b"]),
            np.array(["s", "s"]),
            test_share=0.25,
            seed=0,
        )


def test_given_splits_are_checked():
    check_splits(["train", "test", "train"], ["a", "b", "a"])
    with pytest.raises(UserError, match=r"1 patients are in both splits: 'a'\."):
        check_splits(["train", "test", "test"], ["a", "b", "a"])
    with pytest.raises(UserError, match=r"holds '', 'val'; it may hold only 'train' and 'test'"):
        check_splits(["train", "val", ""], ["a", "b", "c"])
