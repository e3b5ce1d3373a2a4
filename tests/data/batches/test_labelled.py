import jax
import numpy as np
import pytest

from gxdistill.data.batches import labelled, resident
from gxdistill.data.batches.streaming import Pixels
from gxdistill.pytrees import Cohort

SIZE, STRIDE = 3, 2


@pytest.fixture
def cohort():
    rng = np.random.default_rng(0)
    n = 4
    masks = rng.integers(0, 3, (n, 6, 8), np.uint8) * (rng.random((n, 6, 8)) < 0.06)
    text = np.array(["b", "a", "b", "c"])
    images = rng.integers(0, 256, (n, 6, 8, 2), np.uint8)
    zeros = np.zeros(n, np.int32)
    return Cohort(images, masks, zeros, text, text, text, text, ("irrelevant",))


def test_crops_cover_the_images_and_know_whether_they_show_something(cohort):
    whole = labelled.with_label_maps(cohort)
    np.testing.assert_array_equal(whole.images[..., :2], cohort.images)
    table = labelled.crop_table(whole, SIZE, STRIDE)
    covered = np.zeros(cohort.masks.shape, bool)
    for image, row, col, label, patient in zip(*table, strict=True):
        part = (image, slice(row, row + SIZE), slice(col, col + SIZE))
        covered[part] = True
        assert cohort.masks[part].shape == (SIZE, SIZE)
        assert label == cohort.masks[part].any()
        assert patient == {"a": 0, "b": 1, "c": 2}[cohort.patients[image]]
    assert covered.all()
    assert {0, 1} == set(table.label)
    assert len(set(zip(*table[:3], strict=True))) == len(table.image)


def test_a_batch_has_normalised_images_and_their_label_maps(cohort):
    whole = labelled.with_label_maps(cohort)
    normalise = resident.Normalisation((0.5, 0.25), (0.5, 0.125))
    pixels = Pixels(whole.images, np.zeros(4, np.int32), np.arange(4, dtype=np.int32))

    def brighter(images, labels, key):
        return images / 2, labels + jax.random.randint(key, (), 1, 2)

    batch = labelled.to_batch(pixels, jax.random.key(0), normalise=normalise, augment=brighter)
    expected = (cohort.images / 255 / 2 - [0.5, 0.25]) / [0.5, 0.125]
    np.testing.assert_allclose(batch.images, expected, atol=1e-5)
    np.testing.assert_array_equal(batch.targets, cohort.masks.astype(int) + 1)
    np.testing.assert_array_equal(batch.patients, np.arange(4))
