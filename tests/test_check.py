import math

import pytest

from gxdistill import _check


@pytest.mark.parametrize("value", [1, 0.5, math.inf])
def test_positive_accepts(value):
    _check.positive(size=value)


@pytest.mark.parametrize("value", [0, -1, -0.5, math.nan])
def test_positive_names_the_culprit_and_its_value(value):
    with pytest.raises(ValueError, match=f"`stride` is {value}; it must be greater than 0"):
        _check.positive(size=1, stride=value)


@pytest.mark.parametrize("value", [0, 0.01, 1])
def test_share_accepts_the_closed_interval(value):
    _check.share(level=value)


@pytest.mark.parametrize("value", [-0.01, 1.01, 95, math.nan, math.inf])
def test_share_names_the_culprit_and_its_value(value):
    with pytest.raises(ValueError, match=f"`level` is {value}; it must lie between 0 and 1"):
        _check.share(other=0.5, level=value)


def test_one_of_lists_the_choices():
    _check.one_of("rule", "soft", ("counts", "soft"))
    with pytest.raises(ValueError, match="`rule` is 'hard'; it must be one of 'counts', 'soft'"):
        _check.one_of("rule", "hard", ("counts", "soft"))


@pytest.mark.parametrize("shape", [(8, 10), (8, 10, 3), (8, 8)])
def test_patch_fits_up_to_the_shorter_side(shape):
    _check.patch_fits(shape, 8)
    with pytest.raises(ValueError, match=f"9x9 .* image of 8x{shape[1]} pixels.*smaller `size`"):
        _check.patch_fits(shape, 9)
