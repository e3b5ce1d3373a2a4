import dataclasses
import functools

import jax
import numpy as np
import pytest
import scipy.stats

from gxdistill import patching
from gxdistill.data.batches import resident, sampling
from gxdistill.pytrees import Cohort

SIZE, COUNT = 4, 60
NORMALISE = resident.Normalisation((0.4, 0.5), (0.2, 0.25))
DRAW = jax.jit(functools.partial(resident.draw_batch, size=SIZE, batch=COUNT, normalise=NORMALISE))


@pytest.fixture(scope="module")
def cohort():
    rng = np.random.default_rng(0)
    masks = np.zeros((6, 12, 15), bool)
    masks[:, :, 6:] = True  # Each image has irrelevant patches, relevant ones, and some dropped.
    return Cohort(
        images=rng.integers(0, 256, size=(6, 12, 15, 2), dtype=np.uint8),
        masks=masks,
        labels=np.array([0, 1, 0, 1, 0, 0], np.int32),
        patients=np.array(["a", "b", "a", "c", "d", "d"]),
        sites=np.full(6, "here"),
        splits=np.full(6, "train"),
        names=np.array([f"{i}.png" for i in range(6)]),
        class_names=("irrelevant", "negative", "positive"),
    )


@pytest.fixture(scope="module")
def table(cohort):
    return patching.patch_table(cohort, SIZE, 3)


def _resident(cohort, table, **settings):
    return resident.place(cohort, sampling.sampler(cohort, table, **settings))


def _patch(cohort, table, row):
    image, top, left = table.image[row], table.row[row], table.col[row]
    return cohort.images[image, top : top + SIZE, left : left + SIZE]


def _rows(batch, cohort, table):
    """Finds the patches of a batch among those of the table, by their pixels alone."""
    pixels = (np.asarray(batch.images) * NORMALISE.std + NORMALISE.mean) * 255
    known = {_patch(cohort, table, row).tobytes(): row for row in range(len(table.label))}
    assert len(known) == len(table.label)
    return np.array([known[patch.round().astype(np.uint8).tobytes()] for patch in pixels])


def test_patches_match_a_loop_over_numpy_slices(cohort, table):
    batch = DRAW(_resident(cohort, table), jax.random.key(0))
    assert batch.images.shape == (COUNT, SIZE, SIZE, 2)
    assert batch.images.dtype == np.float32
    rows = _rows(batch, cohort, table)
    for patch, row in zip(batch.images, rows, strict=True):
        expected = (_patch(cohort, table, row) / 255 - NORMALISE.mean) / NORMALISE.std
        np.testing.assert_allclose(patch, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(batch.targets, table.label[rows])
    np.testing.assert_array_equal(batch.patients, table.patient[rows])


def test_each_class_is_drawn_equally_often(cohort, table):
    feed = _resident(cohort, table)
    for seed in range(3):
        targets = DRAW(feed, jax.random.key(seed)).targets
        np.testing.assert_array_equal(np.bincount(targets), [20, 20, 20])


def test_an_uneven_batch_is_even_but_for_one_patch(cohort, table):
    feed = _resident(cohort, table)
    draw = functools.partial(resident.draw_batch, size=SIZE, batch=7, normalise=NORMALISE)
    targets = jax.jit(draw)(feed, jax.random.key(0)).targets
    assert sorted(np.bincount(targets)) == [2, 2, 3]


def test_each_patch_of_a_class_is_as_likely_as_the_next(cohort, table):
    feed = _resident(cohort, table, patients="patches")
    keys = jax.random.split(jax.random.key(0), 60)
    drawn = [_rows(DRAW(feed, key), cohort, table) for key in keys]
    counts = np.bincount(np.ravel(drawn), minlength=len(table.label))
    for label in range(3):
        of_label = counts[table.label == label]
        assert len(of_label) > 5
        assert scipy.stats.chisquare(of_label).pvalue > 0.001


def test_only_the_given_rows_are_drawn(cohort, table):
    rows = np.flatnonzero(table.label != 1)[::7]
    feed = _resident(cohort, table.select(rows))
    drawn = [DRAW(feed, jax.random.key(seed)) for seed in range(5)]
    assert set(np.ravel([_rows(batch, cohort, table) for batch in drawn])) == set(rows)
    for batch in drawn:  # A class without rows leaves its turns to the others.
        np.testing.assert_array_equal(np.bincount(batch.targets), [30, 0, 30])


def test_a_batch_is_a_function_of_its_key(cohort, table):
    feed = _resident(cohort, table)
    one, same, other = (DRAW(feed, jax.random.key(seed)) for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, one, same)
    assert not np.array_equal(one.images, other.images)


def test_normalisation_is_mean_and_deviation_of_each_channel(cohort):
    # Five images: a mean over all, not a mean of means of something of another size.
    images = cohort.images[:5].copy()
    images[0, ..., 1] = 255
    part = dataclasses.replace(cohort, images=images)
    mean, std = resident.normalisation(part)
    np.testing.assert_allclose(mean, (images / 255).mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, (images / 255).std((0, 1, 2)), rtol=1e-12)
    normal = np.asarray(resident.Normalisation(mean, std)(images))
    np.testing.assert_allclose(normal.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(normal.std((0, 1, 2)), 1, rtol=1e-5)


def test_images_of_one_grey_are_normalised_to_zero(cohort):
    flat = dataclasses.replace(cohort, images=np.full((2, 3, 3, 1), 51, np.uint8))
    normalise = resident.normalisation(flat)
    assert normalise == ((0.2,), (1 / 255,))
    np.testing.assert_allclose(normalise(flat.images), 0, atol=1e-5)
