"""Numbers modulo 2^64: exact sums, and bounds that keep them from overflowing."""

import numpy as np
import pytest

from gxdistill.federated.fixed_point import FixedPoint


def test_sums_are_exact_in_whatever_order():
    form = FixedPoint(sites=7, bound=10.0, fraction_bits=40)
    values = np.random.default_rng(0).uniform(-10, 10, size=(7, 500))
    codes = [form.encode(row) for row in values]
    total = np.sum(codes, axis=0, dtype=np.uint64)
    np.testing.assert_array_equal(total, np.sum(codes[::-1], axis=0, dtype=np.uint64))
    exact = [sum(round(float(v) * 2**40) for v in column) / 2**40 for column in values.T]
    np.testing.assert_array_equal(form.decode(total), exact)  # Python's whole numbers know no end.


def test_the_largest_sum_that_is_allowed_does_not_overflow():
    form = FixedPoint(sites=4, bound=2.0**28 - 1, fraction_bits=32)
    for sign in (1, -1):
        code = form.encode(np.array([sign * form.bound]))
        np.testing.assert_array_equal(form.decode(code * np.uint64(4)), [sign * 4 * form.bound])


def test_a_sum_that_could_overflow_is_refused():
    with pytest.raises(ValueError, match="A sum of 4 numbers up to 536870912"):
        FixedPoint(sites=4, bound=2.0**29, fraction_bits=32)


@pytest.mark.parametrize("value", [1.01, -2.0, np.nan, np.inf])
def test_a_number_beyond_the_bound_is_refused(value):
    with pytest.raises(ValueError, match=r"larger than the bound 1\.0"):
        FixedPoint(sites=2, bound=1.0).encode(np.array([0.5, value]))
