import itertools
import math

import numpy as np
import pytest

from gxdistill.evaluation import boundaries


def _boundary(mask):
    """Pixels with a neighbour along an axis that is outside of the mask or of the image."""
    points = []
    for at in np.ndindex(mask.shape):
        if not mask[at]:
            continue
        for axis, step in itertools.product(range(mask.ndim), (-1, 1)):
            beside = [*at]
            beside[axis] += step
            inside = 0 <= beside[axis] < mask.shape[axis]
            if not inside or not mask[tuple(beside)]:
                points.append(at)
                break
    return points


def _distances(first, second, spacing):
    there = _boundary(second)
    return [
        min(math.dist(np.multiply(a, spacing), np.multiply(b, spacing)) for b in there)
        for a in _boundary(first)
    ]


@pytest.mark.parametrize(
    ("shape", "spacing"), [((9, 12), (1.0, 1.0)), ((8, 9), (0.5, 2.0)), ((4, 6, 5), (1, 2, 1.5))]
)
def test_distances_are_those_of_all_pairs_of_pixels(shape, spacing):
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 3, (2, 2, *shape))
    labels[1], predicted[1] = 0, 0  # A block each, apart from noise.
    labels[1][tuple(slice(1, 4) for _ in shape)] = 1
    predicted[1][tuple(slice(2, 5) for _ in shape)] = 1
    far = boundaries.compare(predicted, labels, 2, spacing=spacing, tolerance=1.2)
    for n, k in np.ndindex(2, 2):
        there, back = (
            _distances(a[n] == k, b[n] == k, spacing)
            for a, b in ((predicted, labels), (labels, predicted))
        )
        expected = max(np.percentile(there, 95), np.percentile(back, 95))
        np.testing.assert_allclose(far.hd95[n, k], expected)
        np.testing.assert_allclose(far.asd[n, k], np.mean(there + back))
        np.testing.assert_allclose(
            far.surface_dice[n, k], np.mean([d <= 1.2 for d in there + back])
        )


def test_a_square_that_is_shifted_by_three_pixels():
    labels = np.zeros((1, 40, 40), int)
    labels[0, 10:20, 10:20] = 1
    far = boundaries.compare(np.roll(labels, 3, axis=1), labels, 2, tolerance=2)
    assert far.hd95[0, 1] == 3
    # Two sides of 10 lie 3 apart; of the others, 7 of 10 lie upon each other, and 0, 1, 2 off.
    assert 0 < far.asd[0, 1] < 3
    assert boundaries.compare(labels, labels, 2).asd.max() == 0


def test_masks_without_the_class():
    empty, full = np.zeros((1, 3, 4), int), np.ones((1, 3, 4), int)
    both = boundaries.compare(empty, empty, 2)
    assert (both.hd95[0, 1], both.asd[0, 1], both.surface_dice[0, 1]) == (0, 0, 1)
    for predicted, labels in ((empty, full), (full, empty)):
        apart = boundaries.compare(predicted, labels, 2, spacing=(2, 1))
        diagonal = math.hypot(2 * 3, 4)
        assert (apart.hd95[0, 1], apart.asd[0, 1]) == (diagonal, diagonal)
        assert apart.surface_dice[0, 1] == 0


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        (((2, 3), (2, 3)), {}, r"both must be \[N, H, W\] or \[N, D, H, W\]"),
        (((1, 2, 3), (1, 3, 2)), {}, "do not fit"),
        (((1, 2, 3), (1, 2, 3)), {"spacing": (1,)}, "each of the 2 axes"),
    ],
)
def test_what_does_not_fit_is_refused(shapes, options, message):
    predicted, labels = (np.zeros(shape, int) for shape in shapes)
    with pytest.raises(ValueError, match=message):
        boundaries.compare(predicted, labels, 2, **options)
