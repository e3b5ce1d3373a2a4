"""Drawn tissue: what is said of it is counted in the drawn images."""

import numpy as np
import pytest
from scipy import ndimage, stats

from gxdistill.data.shapes import CLASSES, shapes_cohort
from gxdistill.errors import UserError


@pytest.fixture(scope="module")
def cohort():
    return shapes_cohort(1, images=300, size=48)


def test_shapes_go_by_the_seed_alone(cohort):
    again, other = (shapes_cohort(seed, images=300, size=48) for seed in (1, 2))
    np.testing.assert_array_equal(cohort.images, again.images)
    np.testing.assert_array_equal(cohort.masks, again.masks)
    assert (cohort.images != other.images).mean() > 0.5
    assert cohort.images.shape == (300, 48, 48, 1)
    assert len(set(cohort.patients.tolist())) == 300
    assert (cohort.splits == "train").sum() == 270


def test_four_of_five_images_show_one_structure_of_a_class_that_goes_by_its_size(cohort):
    masks = cohort.masks
    shown = [np.unique(mask[mask > 0]) for mask in masks]
    assert max(map(len, shown)) == 1
    classes = np.array([found[0] for found in shown if len(found)])
    # A few lie in the padding; no class is more frequent than the other.
    assert stats.binomtest(len(classes), 300, 0.78).pvalue > 1e-3
    assert stats.binomtest(int((classes == 1).sum()), len(classes), 0.5).pvalue > 1e-3
    areas = {k: [(m == k).sum() for m in masks if (m == k).any()] for k in (1, 2)}
    assert CLASSES == ("background", "large", "small")
    assert np.median(areas[1]) > 2 * np.median(areas[2])
    centres = [ndimage.center_of_mass(mask > 0) for mask in masks if mask.any()]
    assert np.abs(np.mean(centres, axis=0) - 23.5).max() < 1.5


def test_greys_are_those_of_images_that_are_normalised_by_themselves(cohort):
    means = cohort.images.mean((1, 2, 3))
    assert np.abs(means - 128).max() < 6
    assert np.abs(cohort.images.std((1, 2, 3)) - 42).max() < 8


def test_lengths_go_by_the_side():
    small, large = (np.mean(shapes_cohort(0, images=200, size=size).masks > 0) for size in (32, 96))
    assert 0.7 < large / small < 1.4


def test_too_few_for_two_splits_are_refused():
    with pytest.raises(UserError, match=r"4 shapes with a train share of 0\.99 leave a split"):
        shapes_cohort(0, images=4, size=16, train_share=0.99)
