import dataclasses
import functools
import itertools

import jax
import numpy as np
import pytest

from gxdistill import patching
from gxdistill.data.batches import resident, sampling
from gxdistill.data.batches.streaming import Streaming
from gxdistill.data.prepared.stack import Stack
from gxdistill.pytrees import Cohort

SIZE, BATCH = 16, 48
KEY = jax.random.key(7)


@pytest.fixture(scope="module")
def cohort():
    rng, n = np.random.default_rng(0), 40
    masks = np.zeros((n, 64, 64), bool)
    masks[:, :, 24:] = True
    return Cohort(
        images=rng.integers(0, 256, (n, 64, 64, 1), np.uint8),
        masks=masks,
        labels=np.arange(n, dtype=np.int32) % 2,
        patients=np.array([f"p{i}" for i in rng.permutation(n) // 2]),
        sites=np.full(n, "here"),
        splits=np.full(n, "train"),
        names=np.array([f"{i}.png" for i in range(n)]),
        class_names=("irrelevant", "negative", "positive"),
    )


@pytest.fixture(scope="module")
def sampler(cohort):
    return sampling.sampler(cohort, patching.patch_table(cohort, SIZE, 8, inside_above=0.6))


@pytest.fixture
def stream(cohort, sampler):
    return Streaming(cohort, sampler, size=SIZE, batch=BATCH)


def _counted(cohort):
    """The cohort as it is read from a disk, and how often each image was."""
    reads = np.zeros(len(cohort.images), int)

    def read(row):
        reads[row] += 1
        return cohort.images[row]

    shape = cohort.images.shape[1:]
    stack = Stack(read, np.arange(len(reads)), shape=shape, dtype=np.uint8)
    return dataclasses.replace(cohort, images=stack), reads


def _epoch(stream, epoch):
    first = epoch * stream.steps
    return np.stack([stream.rows(KEY, step) for step in range(first, first + stream.steps)])


def test_an_epoch_draws_what_a_resident_feed_draws(stream, sampler):
    assert stream.steps > 10
    draw = jax.jit(functools.partial(sampling.draw_rows, batch=BATCH))
    for epoch in (0, 2):
        rows = _epoch(stream, epoch)
        steps = epoch * stream.steps + np.arange(stream.steps)
        same = [draw(sampler, jax.random.fold_in(KEY, step)) for step in steps]
        np.testing.assert_array_equal(np.sort(rows.ravel()), np.sort(np.ravel(same)))
    assert not np.array_equal(np.sort(_epoch(stream, 0)), np.sort(_epoch(stream, 1)))


def test_every_batch_has_its_number_of_each_class(stream, sampler):
    labels = np.asarray(sampler.table.label)[_epoch(stream, 1)]
    for one in labels:
        np.testing.assert_array_equal(np.bincount(one), [16, 16, 16])


def test_pixels_are_those_of_a_resident_feed(stream, cohort, sampler):
    pixels = next(stream.batches(KEY))
    rows = stream.rows(KEY, 0)
    chosen = [np.asarray(column)[rows] for column in sampler.table]
    for patch, i, top, left in zip(pixels.images, *chosen[:3], strict=True):
        expected = cohort.images[i, top : top + SIZE, left : left + SIZE]
        np.testing.assert_array_equal(patch, expected)
    np.testing.assert_array_equal(pixels.labels, chosen[3])
    np.testing.assert_array_equal(pixels.patients, chosen[4])
    names = np.unique(cohort.patients)[pixels.patients]
    np.testing.assert_array_equal(names, cohort.patients[chosen[0]])


def test_a_stream_goes_on_from_any_step(cohort, sampler, stream):
    steps = stream.steps + 3  # into the second epoch
    whole = list(itertools.islice(stream.batches(KEY), steps))
    for first in (0, 5, stream.steps):
        again = Streaming(cohort, sampler, size=SIZE, batch=BATCH).batches(KEY, first)
        for batch in whole[first : first + 3]:
            jax.tree.map(np.testing.assert_array_equal, batch, next(again))


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_a_batch_and_most_of_the_reading(processes, cohort, sampler, stream):
    whole = stream.batches(KEY)
    counted = [_counted(cohort) for _ in range(processes)]
    feeds = [
        Streaming(one, sampler, size=SIZE, batch=BATCH).batches(KEY, places=own)
        for (one, _), own in zip(counted, np.split(np.arange(BATCH), processes), strict=True)
    ]
    for _ in range(4):
        together = jax.tree.map(lambda *some: np.concatenate(some), *map(next, feeds))
        jax.tree.map(np.testing.assert_array_equal, together, next(whole))
    assert sum(reads.sum() for _, reads in counted) < 2 * len(cohort.images)


def test_memory_is_bounded_and_images_are_seldom_read_twice(sampler, cohort, monkeypatch):
    counted, reads = _counted(cohort)
    kept = 12
    monkeypatch.setattr(Stack, "nbytes", len(reads) * (1 << 20) // kept)  # so that 1 MiB keeps 12
    stream = Streaming(counted, sampler, size=SIZE, batch=BATCH, cache_mb=1)
    assert len(stream._image._block) == kept
    for step in range(stream.steps):
        stream.read(stream.rows(KEY, step))
    assert reads.min() >= 1
    assert reads.mean() < 1.5
    # Mixed nevertheless: a batch holds many patients.
    patients = [len(set(stream.read(stream.rows(KEY, step)).patients)) for step in range(3)]
    assert min(patients) >= 5


def test_normalised_batches_are_those_of_a_resident_feed(stream, cohort, sampler):
    normalise = resident.normalisation(cohort)
    draw = functools.partial(resident.draw_batch, size=SIZE, batch=BATCH, normalise=normalise)
    key = jax.random.fold_in(KEY, 3)
    kept = jax.jit(draw)(resident.place(cohort, sampler), key)
    pixels = stream.read(np.asarray(sampling.draw_rows(sampler, key, BATCH)))
    streamed = jax.jit(functools.partial(resident.of_pixels, normalise))(pixels, key)
    jax.tree.map(np.testing.assert_array_equal, kept, streamed)


def test_no_memory_for_images_is_refused(cohort, sampler):
    with pytest.raises(ValueError, match="`cache_mb` is 0"):
        Streaming(cohort, sampler, size=SIZE, batch=BATCH, cache_mb=0)
