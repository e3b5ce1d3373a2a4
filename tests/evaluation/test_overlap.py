import numpy as np
import pytest

from gxdistill.evaluation import overlap

MEASURES = [overlap.dice, overlap.jaccard, overlap.recall]


def naive(measure, predicted, labels, num_classes):
    """Pixel by pixel, with sets."""
    table = []
    for p_mask, t_mask in zip(predicted, labels, strict=True):
        row = []
        for k in range(num_classes):
            p, t = (
                {(i, j) for i, j in np.ndindex(m.shape) if m[i, j] == k} for m in (p_mask, t_mask)
            )
            if not p and not t:
                row.append(1.0)
            elif not p or not t:
                row.append(0.0)
            else:
                row.append(
                    {
                        "dice": 2 * len(p & t) / (len(p) + len(t)),
                        "jaccard": len(p & t) / len(p | t),
                        "recall": len(p & t) / len(t),
                    }[measure.__name__]
                )
        table.append(row)
    return np.array(table)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("dtype", [np.int32, np.uint8])
def test_a_measure_is_that_of_a_loop_over_pixels(measure, dtype):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, (6, 5, 7)).astype(dtype)
    predicted = np.where(rng.random(labels.shape) < 0.6, labels, rng.integers(0, 4, labels.shape))
    labels[0], predicted[1] = 2, 0  # Classes that one of the masks lacks, and class 4 is in none.
    result = measure(predicted, labels, 5)
    assert result.shape == (6, 5)
    assert result.dtype == np.float64
    np.testing.assert_allclose(result, naive(measure, predicted, labels, 5), rtol=1e-12)


@pytest.mark.parametrize("measure", MEASURES)
def test_a_class_of_neither_mask_is_right_and_of_one_alone_is_wrong(measure):
    empty, full = np.zeros((1, 3, 3), int), np.ones((1, 3, 3), int)
    np.testing.assert_array_equal(measure(empty, empty, 2), [[1, 1]])
    np.testing.assert_array_equal(measure(full, empty, 2), [[0, 0]])
    np.testing.assert_array_equal(measure(empty, full, 2), [[0, 0]])


def test_jaccard_follows_from_dice():
    rng = np.random.default_rng(1)
    masks = rng.integers(0, 3, (2, 9, 8, 8))
    d = overlap.dice(*masks, 3)
    np.testing.assert_allclose(overlap.jaccard(*masks, 3), d / (2 - d), rtol=1e-12)


def test_masks_of_one_class_may_be_bool():
    truth = np.array([[[True, True, False, False]]])
    predicted = np.array([[[True, False, True, False]]])
    np.testing.assert_allclose(overlap.dice(predicted, truth, 2), [[0.5, 0.5]])
    np.testing.assert_allclose(overlap.jaccard(predicted, truth, 2), [[1 / 3, 1 / 3]])


def test_no_image_has_no_score():
    assert overlap.dice(np.zeros((0, 2, 2), int), np.zeros((0, 2, 2), int), 3).shape == (0, 3)


@pytest.mark.parametrize(
    ("predicted", "labels", "fault"),
    [
        (np.zeros((1, 2, 2), int), np.zeros((1, 2, 3), int), "do not fit"),
        (np.zeros((2, 2), int), np.zeros((2, 2), int), r"mask\[None\]"),
        (np.zeros((1, 2, 2)), np.zeros((1, 2, 2), int), "`predicted` is of float64"),
        (np.full((1, 2, 2), 3), np.zeros((1, 2, 2), int), "`predicted` holds 3 .. 3"),
        (np.zeros((1, 2, 2), int), np.full((1, 2, 2), -1), "`labels` holds -1 .. -1"),
    ],
)
def test_masks_that_are_none_are_refused(predicted, labels, fault):
    with pytest.raises(ValueError, match=fault):
        overlap.dice(predicted, labels, 3)


def test_pixel_accuracy_counts_pixels_of_all_classes():
    labels = np.array([[[0, 1], [2, 2]], [[0, 0], [0, 1]]])
    predicted = np.array([[[0, 1], [2, 0]], [[1, 1], [0, 1]]])
    np.testing.assert_array_equal(overlap.pixel_accuracy(predicted, labels), [0.75, 0.5])
    with pytest.raises(ValueError, match=r"\[N, H, W\]"):
        overlap.pixel_accuracy(predicted[0], labels[0])
