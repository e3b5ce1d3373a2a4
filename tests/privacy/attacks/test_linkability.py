import numpy as np
import pytest

from gxdistill.privacy.attacks import linkability


def test_ranks_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 7, 3))
    second[:2] = first[:2]
    both = np.concatenate([first, second])
    a, b = ((x - both.mean(0)) / both.std(0) for x in (first, second))
    expected = []
    for i in range(7):
        true = np.linalg.norm(a[i] - b[i])
        worse = [np.linalg.norm(a[i] - b[j]) > true for j in range(7) if j != i]
        expected.append(np.mean(worse))
    found = linkability.linked(first, second)
    np.testing.assert_allclose(found, expected)
    assert found[:2].tolist() == [1, 1]


def test_records_that_have_nothing_in_common_rank_by_chance():
    rng = np.random.default_rng(1)
    found = linkability.linked(*rng.normal(size=(2, 400, 5)))
    assert found.mean() == pytest.approx(0.5, abs=0.05)
    assert linkability.linked(*np.zeros((2, 5, 3))).tolist() == [0.5] * 5


def test_records_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match="two patients or more"):
        linkability.linked(np.zeros((3, 2)), np.zeros((4, 2)))
