import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from gxdistill.distill import init

NOISE = {
    "steps": 4,
    "images_per_step": 3,
    "shape": (32, 32, 2),
    "num_classes": 3,
    "epochs": 2,
    "lr": 0.02,
    "rule": "raw",
}


@pytest.mark.parametrize(
    ("steps", "images_per_step", "dealt"),
    [
        (3, 2, [[0, 1], [2, 0], [1, 2]]),  # fewer images than classes: the next step goes on
        (2, 3, [[0, 1, 2], [0, 1, 2]]),
        (2, 6, [[0, 1, 2, 0, 1, 2]] * 2),
        (2, 4, [[0, 1, 2, 0], [1, 2, 0, 1]]),
        (1, 1, [[0]]),
    ],
)
def test_classes_are_dealt_in_turn(steps, images_per_step, dealt):
    classes = init.label_classes(steps, images_per_step, 3)
    assert classes.dtype == jnp.int32
    np.testing.assert_array_equal(classes, dealt)


def test_raw_labels_start_one_hot():
    labels = init.noise(jax.random.key(0), **NOISE).labels
    np.testing.assert_array_equal(labels, np.broadcast_to(np.eye(3), (4, 3, 3)))
    np.testing.assert_array_equal(init.targets(labels, "raw"), labels)


def test_softmax_labels_start_near_one_hot():
    labels = init.noise(jax.random.key(0), **{**NOISE, "rule": "softmax"}).labels
    targets = init.targets(labels, "softmax")
    np.testing.assert_allclose(targets, scipy.special.softmax(labels, axis=-1), rtol=1e-6)
    share = np.e**3 / (np.e**3 + 2)
    expected = np.where(np.eye(3, dtype=bool), share, (1 - share) / 2)
    np.testing.assert_allclose(targets, np.broadcast_to(expected, (4, 3, 3)), rtol=1e-6)


def test_noise_is_standard_normal_and_a_function_of_its_key():
    data, same = (init.noise(jax.random.key(0), **NOISE) for _ in range(2))
    assert data.images.shape == (4, 3, 32, 32, 2)
    assert {leaf.dtype for leaf in jax.tree.leaves(data)} == {np.dtype(np.float32)}
    assert scipy.stats.kstest(np.ravel(data.images), "norm").pvalue > 0.01
    # No two images are alike, nor neighbours in one.
    flat = np.asarray(data.images).reshape(12, -1)
    assert np.abs(np.corrcoef(flat) - np.eye(12)).max() < 4.5 / np.sqrt(flat.shape[1])
    assert abs(np.corrcoef(flat[:, 1:].ravel(), flat[:, :-1].ravel())[0, 1]) < 0.03
    np.testing.assert_array_equal(data.images, same.images)
    other = init.noise(jax.random.key(1), **NOISE)
    assert abs(np.corrcoef(np.ravel(data.images), np.ravel(other.images))[0, 1]) < 0.03


def test_each_step_of_each_epoch_starts_at_the_same_rate():
    log_lr = init.noise(jax.random.key(0), **NOISE).log_lr
    np.testing.assert_allclose(np.exp(log_lr), np.full(4 * 2, 0.02), rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "`steps` is 0"),
        ({"images_per_step": 0}, "`images_per_step` is 0"),
        ({"num_classes": 0}, "`num_classes` is 0"),
        ({"epochs": 0}, "`epochs` is 0"),
        ({"lr": -0.1}, "`lr` is -0.1"),
        ({"rule": "hard"}, "`label rule` is 'hard'; it must be one of 'raw', 'softmax'"),
    ],
)
def test_bad_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        init.noise(jax.random.key(0), **{**NOISE, **change})


def test_rates_start_equal_or_fall_as_a_cosine():
    constant, falling = (
        np.exp(init.noise(jax.random.key(0), **NOISE, schedule=schedule).log_lr)
        for schedule in ("constant", "cosine")
    )
    np.testing.assert_allclose(constant, np.full(8, 0.02), rtol=1e-6)
    expected = 0.02 * np.cos(np.pi * np.arange(8) / 16) ** 2  # (1 + cos 2a) / 2 = cos^2 a
    np.testing.assert_allclose(falling, expected, rtol=1e-5)


@pytest.mark.parametrize("rule", init.LABEL_RULES)
def test_learned_labels_are_read_as_the_probabilities_they_were_made_of(rule):
    probabilities = np.random.default_rng(0).dirichlet(np.ones(3), (4, 2)).astype(np.float32)
    learned = init.as_learned(probabilities, rule)
    np.testing.assert_allclose(init.targets(learned, rule), probabilities, rtol=1e-5)
    certain = init.targets(init.as_learned(np.eye(3, dtype=np.float32), rule), rule)
    np.testing.assert_allclose(certain, np.eye(3), atol=1e-5)
