import numpy as np
import pytest

from gxdistill.package import range_coder


def _drawn(rng, count, scale):
    return np.rint(rng.laplace(size=count) * scale).clip(-31, 31).astype(np.int32)


@pytest.mark.parametrize("scale", [0.0, 0.05, 0.7, 3.0, 1e3])
def test_numbers_come_back(scale):
    rng = np.random.default_rng(0)
    for count in (0, 1, 2, 3, 17, 400, 3000):
        values = _drawn(rng, count, scale)
        found = range_coder.decode(range_coder.encode(values), count)
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, values)


def test_many_short_rows_come_back():
    """Ends of the interval of all kinds: long runs, rare answers, every size."""
    rng = np.random.default_rng(1)
    for _ in range(300):
        values = rng.integers(-31, 32, rng.integers(1, 300)) // rng.integers(1, 33)
        content = range_coder.encode(values)
        np.testing.assert_array_equal(range_coder.decode(content, len(values)), values)


@pytest.mark.parametrize("scale", [0.1, 0.5, 2.0, 5.0])
def test_the_size_is_the_entropy_and_what_learning_the_counts_takes(scale):
    values = _drawn(np.random.default_rng(2), 4000, scale)
    _, counts = np.unique(values, return_counts=True)
    p = counts / counts.sum()
    entropy = -(p * np.log2(p)).sum() * len(values) / 8
    # Half the log of the count for each of the questions, Krichevsky & Trofimov 1981.
    learning = 16 * 0.5 * np.log2(len(values)) / 8
    assert entropy - 1 < len(range_coder.encode(values)) < 1.015 * entropy + learning + 4


def test_any_bytes_are_some_numbers():
    rng = np.random.default_rng(3)
    for _ in range(100):
        found = range_coder.decode(rng.bytes(rng.integers(40)), 200)
        assert len(found) == 200
        assert np.abs(found).max() <= 31
