import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from gxdistill.distill import baselines, replay
from gxdistill.pytrees import Batch, Distilled
from tests import toy

NETWORK = toy.network()
KEY = jax.random.key(4)
COSINE = (1 + np.cos(np.pi * np.array([0, 0.25, 0.5, 0.75]))) / 2
CHOICES = [baselines.random_real, baselines.class_means, baselines.kmeans_centres]
each_choice = pytest.mark.parametrize("choose", CHOICES)


@pytest.fixture(scope="module")
def pool():
    return toy.batch(np.random.default_rng(0), 60)


@pytest.fixture(scope="module")
def start():
    return NETWORK.init(jax.random.key(1))


def _like(steps, per_step, epochs=2):
    shapes = (steps, per_step, *toy.SHAPE), (steps, per_step, toy.CLASSES), (steps * epochs,)
    return Distilled(*(np.full(shape, 9, np.float32) for shape in shapes))


def _of_class(pool, label):
    return np.asarray(pool.images)[np.asarray(pool.targets) == label]


@each_choice
@pytest.mark.parametrize(("steps", "per_step"), [(2, 3), (3, 2), (1, 7), (1, 2)])
def test_a_baseline_has_the_numbers_of_the_distilled_set(choose, steps, per_step, pool):
    like = _like(steps, per_step)
    data = choose(pool, like, KEY)
    assert jax.tree.map(jnp.shape, data) == jax.tree.map(jnp.shape, like)
    assert {leaf.dtype for leaf in jax.tree.leaves(data)} == {np.dtype(np.float32)}
    # Labels are one-hot, classes dealt in turn: also where images are fewer than classes.
    dealt = np.arange(steps * per_step) % toy.CLASSES
    np.testing.assert_array_equal(data.labels.reshape(-1, toy.CLASSES), np.eye(3)[dealt])
    # Images look like their class.
    means = np.stack([_of_class(pool, label).mean(axis=0) for label in range(3)])
    away = np.asarray(data.images).reshape(-1, 1, *toy.SHAPE) - means
    np.testing.assert_array_equal(np.square(away).sum((2, 3, 4)).argmin(axis=1), dealt)


def test_teachers_give_the_mean_of_their_probabilities(pool):
    keys = jax.random.split(KEY, 2)
    teachers = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(NETWORK.init, keys))
    data = baselines.random_real(pool, _like(2, 3), KEY)
    taught = baselines.with_teacher_labels(data, NETWORK, teachers)
    logits = [NETWORK.apply(NETWORK.init(key), data.images.reshape(-1, *toy.SHAPE)) for key in keys]
    expected = scipy.special.softmax(np.stack(logits), axis=-1).mean(0)
    np.testing.assert_allclose(taught.labels.reshape(-1, toy.CLASSES), expected, rtol=1e-5)
    np.testing.assert_array_equal(taught.images, data.images)
    np.testing.assert_array_equal(taught.log_lr, data.log_lr)
    for temperature in (0.05, 0.5, 4.0):
        changed = baselines.with_teacher_labels(data, NETWORK, teachers, temperature).labels
        powers = expected.astype(np.float64) ** (1 / temperature)
        np.testing.assert_allclose(
            changed.reshape(-1, toy.CLASSES), powers / powers.sum(-1, keepdims=True), rtol=1e-4
        )


def test_random_real_images_are_the_pools_own_and_differ_by_key(pool):
    one, same, other = (
        np.asarray(baselines.random_real(pool, _like(2, 6), jax.random.key(seed)).images)
        for seed in (0, 0, 1)
    )
    known = {image.tobytes() for image in np.asarray(pool.images)}
    chosen = [image.tobytes() for image in one.reshape(12, -1)]
    assert known.issuperset(chosen)
    assert len(set(chosen)) == 12  # without replacement
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_random_real_takes_no_patch_twice_that_was_drawn_twice(pool):
    twice = jax.tree.map(lambda column: np.concatenate([column, column]), pool)
    images = np.asarray(baselines.random_real(twice, _like(6, 10), KEY).images)
    assert len(np.unique(images.reshape(60, -1), axis=0)) == 60


def test_class_means_match_numpy(pool):
    data = baselines.class_means(pool, _like(2, 6), KEY)
    expected = np.stack([_of_class(pool, label).mean(axis=0) for label in (0, 1, 2)] * 2)
    for images in data.images:
        np.testing.assert_allclose(images, expected, rtol=1e-5, atol=1e-6)


def test_kmeans_finds_the_centres_of_separated_blobs():
    """One class in two blobs far apart, of which the start may take both images from one."""
    rng = np.random.default_rng(0)
    blobs = 10.0 * np.array([1, -1])[np.arange(40) % 2]
    images = blobs[:, None, None, None] + rng.normal(size=(40, *toy.SHAPE))
    pool = Batch(images.astype(np.float32), np.zeros(40, np.int32), np.arange(40, dtype=np.int32))
    like = Distilled(
        np.zeros((1, 2, *toy.SHAPE), np.float32), np.zeros((1, 2, 1)), np.zeros(1, np.float32)
    )
    expected = np.stack([images[blobs < 0].mean(axis=0), images[blobs > 0].mean(axis=0)])
    for seed in range(5):
        centres = baselines.kmeans_centres(pool, like, jax.random.key(seed)).images[0]
        centres = np.asarray(centres)[np.argsort(np.mean(centres, axis=(1, 2, 3)))]
        np.testing.assert_allclose(centres, expected, rtol=1e-5, atol=1e-5)


def test_kmeans_ends_where_lloyds_algorithm_rests(pool):
    """Each centre is the mean of the patches that are nearest to it."""
    data = baselines.kmeans_centres(pool, _like(1, 9), KEY)
    for label in range(3):
        flat = _of_class(pool, label).reshape(20, -1)
        centres = np.asarray(data.images[0, label::3]).reshape(3, -1)
        distances = ((flat[:, None] - centres) ** 2).sum(axis=2)
        for i in range(3):
            nearest = flat[distances.argmin(axis=1) == i]
            np.testing.assert_allclose(centres[i], nearest.mean(axis=0), rtol=1e-4, atol=1e-5)


@each_choice
def test_a_pool_with_too_few_patches_repeats_them(choose, pool):
    few = jax.tree.map(lambda column: column[:4], pool)  # of classes 0, 1, 2 and 0
    data = choose(few, _like(1, 9), KEY)
    np.testing.assert_array_equal(data.images[0, 1], few.images[1])
    np.testing.assert_array_equal(data.images[0, 4], few.images[1])


@each_choice
def test_a_pool_without_a_class_is_refused(choose, pool):
    some = jax.tree.map(lambda column: column[np.asarray(pool.targets) != 1], pool)
    with pytest.raises(ValueError, match="no patch of class 1"):
        choose(some, _like(1, 3), KEY)


@pytest.mark.parametrize(
    ("scale", "schedule", "course"),
    [(1, "constant", np.ones(4)), (1e20, "constant", np.ones(4)), (1, "cosine", COSINE)],
)
def test_the_best_rate_is_that_of_the_least_loss(scale, schedule, course, pool, start):
    data = baselines.class_means(pool, _like(1, 3, epochs=4), KEY)
    data = dataclasses.replace(data, labels=scale * data.labels)

    def train(data):
        return replay.replay(NETWORK, start, data, rule="raw")

    def loss(rate):
        tried = dataclasses.replace(data, log_lr=jnp.log(jnp.asarray(rate * course, jnp.float32)))
        logits = NETWORK.apply(train(tried), pool.images)
        shares = scipy.special.log_softmax(np.asarray(logits), axis=-1)
        return -np.mean(shares[np.arange(60), pool.targets])

    rates = [0.003, 0.01, 0.03, 0.1, 0.3]
    losses = [loss(rate) for rate in rates]
    assert np.isnan(losses).any() == (scale > 1)  # Labels so large that high rates diverge.
    chosen = baselines.with_best_rate(NETWORK, data, pool, train, schedule=schedule)
    best = rates[np.nanargmin(losses)]
    np.testing.assert_allclose(np.exp(chosen.log_lr), best * course, rtol=1e-5)
    np.testing.assert_array_equal(chosen.images, data.images)
