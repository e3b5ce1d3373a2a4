import itertools
import json
from functools import partial

import jax
import numpy as np
import pytest
from PIL import Image

from gxdistill.data import phantom
from gxdistill.errors import UserError
from gxdistill.models.cached import create_network
from gxdistill.package.seeds import Use
from gxdistill.patching import organ_shares, patch_corners
from tests import small_jobs


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return small_jobs.make(tmp_path_factory.mktemp("job"))


def test_settings_are_checked_before_any_work(tmp_path):
    with pytest.raises(UserError, match=r"patch\.stride is 0"):
        small_jobs.make(tmp_path, patch__stride=0)


def test_each_use_of_randomness_and_each_seed_has_its_key(job, tmp_path):
    other = small_jobs.make(tmp_path, seed=1)
    keys = {jax.random.key_data(j.key(use)).tobytes() for j in (job, other) for use in Use}
    assert len(keys) == 2 * len(Use)
    again = small_jobs.make(tmp_path)
    for use in Use:
        assert job.key(use) == again.key(use)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"seed": 1}, False),
        ({"data__size": 64}, False),
        ({"patch__border": True}, False),
        ({"network__options.width": 8}, False),
        ({"distill__optimizer.clip": 2.0}, False),
        ({"name": "another"}, True),
        ({"evaluate__networks": 9}, True),
        ({"decision__rule": "soft"}, True),
    ],
)
def test_the_identity_is_what_the_distilled_data_depends_on(change, same, job, tmp_path):
    identity = job.identity()
    assert json.loads(json.dumps(identity)) == identity
    assert (small_jobs.make(tmp_path, **change).identity() == identity) == same


def test_a_changed_image_is_another_identity_under_the_same_settings(tmp_path):
    small_jobs.write_cohort(tmp_path)
    make = partial(small_jobs.make, tmp_path, data__kind="manifest", data__path=str(tmp_path))
    before = make().identity()
    assert make().identity() == before
    pixels = np.array(Image.open(tmp_path / "0.png"))
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(tmp_path / "0.png")
    after = make().identity()
    assert {name for name in before if before[name] != after[name]} == {"cohort"}


def test_tables_follow_the_area_rule_in_each_split(job):
    cohort = phantom.phantom_cohort(0, patients=16, size=128)
    corners = patch_corners((128, 128), 16, 8)
    for split, part in (("train", job.training), ("test", job.test)):
        mine = cohort.select(cohort.splits == split)
        np.testing.assert_array_equal(part.images, mine.images)
        expected = [
            (i, row, col, 0 if share <= 0.01 else 1 + mine.labels[i])
            for i, mask in enumerate(mine.masks)
            for (row, col), share in zip(corners, organ_shares(mask, corners, 16), strict=True)
            if share <= 0.01 or share >= 0.6
        ]
        np.testing.assert_array_equal(np.transpose(job.tables[split][:4]), expected)


@pytest.mark.parametrize("feed", ["resident", "streaming"])
def test_the_feed_draws_normalised_training_patches_of_all_classes(feed, tmp_path):
    job = small_jobs.make(tmp_path, data__feed=feed)
    draw, given, _ = job.feed(30)
    batch = jax.jit(draw)(next(given(job.key(Use.LOOP), 0)), job.key(Use.POOL))
    assert np.bincount(batch.labels).tolist() == [10, 10, 10]
    mean, std = job.training.images.mean() / 255, job.training.images.std() / 255
    assert job.normalise.mean == pytest.approx((mean,))
    assert job.normalise.std == pytest.approx((std,))
    pixels = (np.asarray(batch.images) * std + mean) * 255
    np.testing.assert_allclose(pixels, pixels.round(), atol=1e-3)
    views = np.lib.stride_tricks.sliding_window_view(job.training.images[..., 0], (16, 16), (1, 2))
    known = {view.tobytes() for view in views[:, ::8, ::8].reshape(-1, 16, 16)}
    assert {patch.round().astype(np.uint8).tobytes() for patch in pixels[..., 0]} <= known


def test_the_same_seed_gives_both_feeds_the_same_patches_an_epoch(tmp_path):
    def epoch(feed):
        job = small_jobs.make(tmp_path, data__feed=feed, patch__stride=16)
        assert job.streams == (feed == "streaming")
        assert job.identity()["data"]["feed"] == feed
        count = -(-len(job.tables["train"].image) // 30)
        draw, given, _ = job.feed(30)
        run = jax.jit(lambda one, key: draw(one, key).images.astype(np.float16))
        keys = [jax.random.fold_in(job.key(Use.LOOP), step) for step in range(count)]
        parts = [run(*pair) for pair in zip(given(job.key(Use.LOOP), 0), keys, strict=False)]
        return sorted(patch.tobytes() for part in map(np.asarray, parts) for patch in part)

    assert epoch("resident") == epoch("streaming")


def test_auto_streams_what_is_larger_than_the_budget(tmp_path):
    small_jobs.write_cohort(tmp_path, ["train"] * 4 + ["test"], masks=False, side=512)
    for most, streams in ((1, True), (2, False)):
        given = {"data__kind": "manifest", "data__path": str(tmp_path)}
        job = small_jobs.make(tmp_path, **given, data__resident_mb=most)
        assert job.training.images.nbytes == 2 << 20
        assert job.streams == streams


def test_samples_are_the_same_whatever_the_feed(tmp_path):
    for split in ("train", "test"):
        one, other = (
            small_jobs.make(tmp_path, data__feed=feed).sample(split, 30, jax.random.key(0))
            for feed in ("resident", "streaming")
        )
        jax.tree.map(np.testing.assert_array_equal, one, other)


def test_weights_of_sampling_that_fit_no_cohort_are_named(tmp_path):
    job = small_jobs.make(tmp_path, sampling__classes=(1, 2))
    with pytest.raises(UserError, match=r"sampling: `classes` has no weight for each of irrel"):
        job.feed(30)


def test_a_class_without_patches_is_named_with_its_split(tmp_path):
    job = small_jobs.make(tmp_path, patch__inside_above=1.0, patch__size=64)
    with pytest.raises(UserError, match=r"No train patch is \S*gastritis.* patches of 64 px"):
        _ = job.tables


def test_a_split_without_images_is_named(tmp_path):
    small_jobs.write_cohort(tmp_path, ["train", "train"])
    job = small_jobs.make(tmp_path, data__kind="manifest", data__path=str(tmp_path))
    with pytest.raises(UserError, match=r"No image is for the test split.*data\.test_share"):
        _ = job.tables


def test_equal_settings_give_the_same_network_so_that_programs_are_shared():
    first = create_network("convnet", {"width": 4, "depth": 1}, (16, 16, 1), 3)
    assert create_network("convnet", {"depth": 1, "width": 4}, (16, 16, 1), 3) is first
    others = [
        create_network("convnet", {"width": 4, "depth": 1}, shape, classes)
        for shape, classes in (((16, 16, 3), 3), ((16, 16, 1), 2))
    ]
    for one, other in itertools.combinations([first, *others], 2):
        assert one is not other
    shapes = jax.tree.map(
        lambda leaf: leaf.shape, jax.eval_shape(others[1].init, jax.random.key(0))
    )
    assert shapes["Dense_0"]["kernel"] == (8 * 8 * 4, 2)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lenett", {}, "'lenett'"),
        ("convnet", {"depht": 3}, "'depht'"),
        ("convnet", {"depth": 5}, "too small"),
        ("convnet", {"width": "wide"}, "wide"),
        ("convnet", {"width": 2.5}, "2.5"),
        ("convnet", {"depth": None}, "None"),
        ("convnet", {"norm": 3}, "3"),
        ("convnet", {"dtype": "float8"}, "float8"),
        ("resnet18", {"stages": 3}, "3"),
        ("resnet18", {"stages": ["a"]}, "'a'"),
    ],
)
def test_a_network_that_cannot_be_is_the_users_to_mend(name, options, message):
    with pytest.raises(UserError, match=r"^network: ") as refusal:
        create_network(name, options, (16, 16, 1), 3)
    assert message in str(refusal.value)
