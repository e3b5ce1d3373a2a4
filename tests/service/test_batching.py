"""Which requests share a batch: by all ways to part them, where these are few."""

import itertools

import pytest

from gxdistill.service.batching import worth_computing

SIZES = (1, 2, 4, 8, 16, 32)


@pytest.mark.parametrize(
    ("counts", "kept"),
    [
        ([], 0),
        ([5], 1),  # Alone, whatever it leaves empty.
        ([1] * 3, 3),
        ([1] * 5, 4),
        ([1] * 6, 6),
        ([1] * 9, 8),
        ([1] * 12, 12),
        ([3, 3, 3], 2),  # Six of eight, and not nine of sixteen.
        ([1, 16], 1),
        ([16, 1], 1),
        ([1] * 32, 32),
    ],
)
def test_what_would_be_empty_by_more_than_a_quarter_is_left_for_the_next(counts, kept):
    assert worth_computing(counts, SIZES) == kept


def test_no_more_than_a_third_is_computed_in_vain_where_each_request_is_one_image():
    def computed(total):
        kept = worth_computing([1] * total, SIZES)
        return kept, next(size for size in SIZES if size >= kept)

    for total in range(1, 33):
        kept, size = computed(total)
        assert 1 <= kept <= total
        assert size - kept <= kept / 3
        # Of all numbers that leave as little empty, or less, none is larger.
        for other in range(kept + 1, total + 1):
            larger = next(s for s in SIZES if s >= other)
            assert larger > other / 0.75


def test_all_are_computed_in_the_end():
    for counts in itertools.product((1, 2, 5), repeat=4):
        left = list(counts)
        while left:
            kept = worth_computing(left, SIZES)
            assert kept >= 1
            left = left[kept:]
