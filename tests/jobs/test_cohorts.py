import dataclasses

import jax
import numpy as np
import pytest

from gxdistill.data import phantom
from gxdistill.errors import UserError
from gxdistill.jobs.cohorts import Cohorts
from gxdistill.package.seeds import Use
from gxdistill.patching import organ_shares, patch_corners
from tests import small_jobs


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return small_jobs.make(tmp_path_factory.mktemp("job"))


def test_tables_follow_the_area_rule_in_each_split(job):
    cohort = phantom.phantom_cohort(0, patients=16, size=128)
    corners = patch_corners((128, 128), 16, 8)
    for split, part in (("train", job.cohorts.train), ("test", job.cohorts.test)):
        in_split = cohort.select(cohort.splits == split)
        np.testing.assert_array_equal(part.images, in_split.images)
        expected = [
            (i, row, col, 0 if share <= 0.01 else 1 + in_split.labels[i])
            for i, mask in enumerate(in_split.masks)
            for (row, col), share in zip(corners, organ_shares(mask, corners, 16), strict=True)
            if share <= 0.01 or share >= 0.6
        ]
        np.testing.assert_array_equal(np.transpose(job.cohorts.tables[split][:4]), expected)


@pytest.mark.parametrize("feed", ["resident", "streaming"])
def test_the_feed_draws_normalised_training_patches_of_all_classes(feed, tmp_path):
    job = small_jobs.make(tmp_path, data__feed=feed)
    draw, stream, _ = job.cohorts.batches(30)
    batch = jax.jit(draw)(next(stream(job.key(Use.LOOP), 0)), job.key(Use.POOL))
    assert np.bincount(batch.targets).tolist() == [10, 10, 10]
    mean, std = job.cohorts.train.images.mean() / 255, job.cohorts.train.images.std() / 255
    assert job.cohorts.normalisation.mean == pytest.approx((mean,))
    assert job.cohorts.normalisation.std == pytest.approx((std,))
    pixels = (np.asarray(batch.images) * std + mean) * 255
    np.testing.assert_allclose(pixels, pixels.round(), atol=1e-3)
    views = np.lib.stride_tricks.sliding_window_view(
        job.cohorts.train.images[..., 0], (16, 16), (1, 2)
    )
    known = {view.tobytes() for view in views[:, ::8, ::8].reshape(-1, 16, 16)}
    assert {patch.round().astype(np.uint8).tobytes() for patch in pixels[..., 0]} <= known


def test_the_same_seed_gives_both_feeds_the_same_patches_an_epoch(tmp_path):
    def epoch(feed):
        job = small_jobs.make(tmp_path, data__feed=feed, patch__stride=16)
        assert job.cohorts.streams == (feed == "streaming")
        assert job.identity()["data"]["feed"] == feed
        count = -(-len(job.cohorts.tables["train"].image) // 30)
        draw, stream, _ = job.cohorts.batches(30)
        run = jax.jit(lambda feed, key: draw(feed, key).images.astype(np.float16))
        keys = [jax.random.fold_in(job.key(Use.LOOP), step) for step in range(count)]
        parts = [run(*pair) for pair in zip(stream(job.key(Use.LOOP), 0), keys, strict=False)]
        return sorted(patch.tobytes() for part in map(np.asarray, parts) for patch in part)

    assert epoch("resident") == epoch("streaming")


def test_auto_streams_what_is_larger_than_the_budget(tmp_path):
    small_jobs.write_cohort(tmp_path, ["train"] * 4 + ["test"], masks=False, side=512)
    for most, streams in ((1, True), (2, False)):
        given = {"data__kind": "manifest", "data__path": str(tmp_path)}
        job = small_jobs.make(tmp_path, **given, data__resident_mb=most)
        assert job.cohorts.train.images.nbytes == 2 << 20
        assert job.cohorts.streams == streams


def test_samples_are_the_same_whatever_the_feed(tmp_path):
    for split in ("train", "test"):
        one, other = (
            small_jobs.make(tmp_path, data__feed=feed).cohorts.sample(split, 30, jax.random.key(0))
            for feed in ("resident", "streaming")
        )
        jax.tree.map(np.testing.assert_array_equal, one, other)


def test_weights_of_sampling_that_fit_no_cohort_are_named(tmp_path):
    job = small_jobs.make(tmp_path, sampling__classes=(1, 2))
    with pytest.raises(UserError, match=r"sampling: `classes` has no weight for each of irrel"):
        job.cohorts.batches(30)


def test_a_class_without_patches_is_named_with_its_split(tmp_path):
    job = small_jobs.make(tmp_path, patch__inside_above=1.0, patch__size=64)
    with pytest.raises(UserError, match=r"No train patch is \S*gastritis.* patches of 64 px"):
        _ = job.cohorts.tables


def test_drawn_images_are_known_by_their_settings_and_files_by_their_pixels(tmp_path):
    def digest(job, level=None):
        cohort = job.cohorts.source.cohort
        if level is not None:
            cohort.images[0, 0, 0, 0] = level
        return job.cohorts.digest

    assert digest(small_jobs.make(tmp_path), 3) == digest(small_jobs.make(tmp_path))
    small_jobs.write_cohort(tmp_path / "files")
    files = {"data__kind": "manifest", "data__path": str(tmp_path / "files")}
    plain, other = (digest(small_jobs.make(tmp_path, **files), level) for level in (None, 3))
    assert plain != other


def test_a_split_without_images_is_named(tmp_path):
    small_jobs.write_cohort(tmp_path, ["train", "train"])
    job = small_jobs.make(tmp_path, data__kind="manifest", data__path=str(tmp_path))
    with pytest.raises(UserError, match=r"No image is for the test split.*data\.test_share"):
        _ = job.cohorts.tables


def test_a_class_without_a_test_image_is_named_as_such(job):
    cohort = job.cohorts.source.cohort
    kept = cohort.select((cohort.splits == "train") | (cohort.labels == 0))
    lacking = Cohorts(job.config, job.log)
    lacking.__dict__["source"] = dataclasses.replace(job.cohorts.source, cohort=kept)
    patients = len(set(kept.patients[kept.labels == 1].tolist()))
    message = f"No test image is {kept.label_names[1]}: none of the {patients} patients"
    with pytest.raises(UserError, match=message):
        _ = lacking.tables
