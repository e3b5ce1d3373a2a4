import numpy as np
import pytest

from gxdistill.report import contours


def test_an_outline_is_where_another_class_begins():
    labels = np.random.default_rng(0).integers(0, 3, (7, 9))
    found = contours.outline(labels)
    for row, col in np.ndindex(labels.shape):
        beside = [(row - 1, col), (row + 1, col), (row, col - 1), (row, col + 1)]
        others = [labels[r, c] for r, c in beside if 0 <= r < 7 and 0 <= c < 9]
        differs = any(other != labels[row, col] for other in others)
        assert found[row, col] == (labels[row, col] > 0 and differs)


def test_pixels_that_are_wrong_are_missed_or_extra():
    truth = np.array([[0, 0, 1, 1, 2]])
    predicted = np.array([[0, 1, 1, 0, 1]])
    image = np.full((1, 5, 3), 200, np.uint8)
    shown = contours.errors(image, truth, predicted)
    assert [tuple(pixel) for pixel in shown[0].tolist()] == [
        (164, 164, 164),
        contours.EXTRA,
        (164, 164, 164),
        contours.MISSED,
        contours.MISSED,
    ]


def test_classes_are_laid_over_the_image():
    labels = np.array([[0, 1, 2, 5]])
    image = np.full((1, 4, 3), 100, np.uint8)
    painted = contours.painted(image, labels)
    np.testing.assert_array_equal(painted[0, 0], 100)
    for col, colour in ((1, 0), (2, 1), (3, 0)):  # The fifth class has the first one's colour.
        expected = (100 + np.array(contours.CLASSES[colour])) / 2
        np.testing.assert_allclose(painted[0, col], expected, atol=0.5)


@pytest.mark.parametrize(("side", "factor"), [(64, 5), (320, 1), (500, 1)])
def test_small_images_are_enlarged_by_whole_numbers(side, factor):
    pixels = np.arange(side * side).reshape(side, side)
    large = contours.enlarge(pixels)
    assert large.shape == (side * factor,) * 2
    np.testing.assert_array_equal(large[::factor, ::factor], pixels)


def test_grey_images_and_those_of_other_channels_are_shown_in_grey():
    image = np.random.default_rng(0).integers(0, 256, (4, 5, 2), np.uint8)
    for channels in (image[..., :1], image):
        shown = contours.to_colours(channels)
        np.testing.assert_array_equal(shown, np.stack([image[..., 0]] * 3, -1))
    colours = np.zeros((2, 2, 3), np.uint8)
    assert contours.to_colours(colours) is colours


@pytest.mark.parametrize("shape", [(9, 12), (4, 12), (3, 2)])
def test_the_square_with_most_errors_is_found(shape):
    wrong = np.random.default_rng(0).random(shape) < 0.2
    square = contours.worst_square(wrong, 4)
    tall, wide = min(4, shape[0]), min(4, shape[1])
    assert wrong[square].shape == (tall, wide)
    counts = [
        wrong[row : row + tall, col : col + wide].sum()
        for row in range(shape[0] - tall + 1)
        for col in range(shape[1] - wide + 1)
    ]
    assert wrong[square].sum() == max(counts)
