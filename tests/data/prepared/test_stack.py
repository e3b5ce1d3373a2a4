import numpy as np
import pytest

from gxdistill.data.prepared.stack import Stack


@pytest.fixture
def whole():
    return np.random.default_rng(0).integers(0, 256, (6, 4, 3, 1), np.uint8)


@pytest.fixture
def reads():
    return []


@pytest.fixture
def stack(whole, reads):
    def read(row):
        reads.append(row)
        return whole[row]

    return Stack(read, np.arange(6), shape=(4, 3, 1), dtype=np.uint8)


@pytest.mark.parametrize(
    "at",
    [
        slice(2, 5),
        np.array([5, 0, 5]),
        np.array([True, False, True, True, False, False]),
        slice(None),
    ],
)
def test_a_part_is_that_of_the_array_and_is_read_when_it_is_used(at, stack, whole, reads):
    part = stack[at]
    assert (part.shape, part.dtype, part.nbytes) == (whole[at].shape, np.uint8, whole[at].nbytes)
    assert len(part) == len(whole[at])
    assert reads == []
    np.testing.assert_array_equal(np.asarray(part), whole[at])
    assert reads == np.arange(6)[at].tolist()


def test_one_is_an_array(stack, whole, reads):
    np.testing.assert_array_equal(stack[np.array([4, 1])][1], whole[1])
    np.testing.assert_array_equal(stack[np.int32(-1)], whole[-1])
    assert reads == [1, 5]
    for one, expected in zip(stack, whole, strict=True):
        np.testing.assert_array_equal(one, expected)


def test_it_never_poses_as_an_array_that_is_there(stack):
    with pytest.raises(ValueError, match="without reading it"):
        np.asarray(stack, copy=False)
