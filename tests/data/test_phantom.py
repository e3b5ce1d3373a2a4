import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize

from gxdistill import models, patching
from gxdistill.data import phantom
from gxdistill.errors import UserError
from gxdistill.evaluation import decision, metrics
from tests import commands

KEY = jax.random.key(3)
PATCH, STRIDE = 32, 16


def _render(key, gastritis, size=256):
    return tuple(np.asarray(x) for x in phantom.render(key, gastritis, size=size))


@pytest.fixture(scope="module")
def cohort():
    return phantom.phantom_cohort(0, patients=240)


# Purity


def test_one_key_gives_one_image_and_another_key_another():
    image, mask = _render(KEY, True)
    again, mask_again = _render(KEY, True)
    other, other_mask = _render(jax.random.key(4), True)
    assert image.dtype == np.uint8
    assert mask.dtype == bool
    assert image.shape == mask.shape == (256, 256)
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(mask, mask_again)
    assert np.mean(image != other) > 0.9
    assert np.mean(mask != other_mask) > 0.01


# Prints the relief of the mucosa before anything rounds it.
RELIEF = """
import jax, numpy as np
from gxdistill.data import phantom

def relief(key):
    look, noise = phantom._look(key), phantom._noises(key, 256)
    stomach = phantom._stomach(look, key, noise, 256)
    seen = stomach["depth"] > 0
    return phantom._mucosa(look, noise, True, across=stomach["across"], seen=seen)

print(np.asarray(jax.jit(relief)(jax.random.key(3))).tobytes().hex())
"""


def test_the_number_of_cores_decides_nothing():
    # With as many threads as cores, and no program that was compiled for others.
    env = {name: value for name, value in os.environ.items() if name != "PJRT_NPROC"}
    env["JAX_ENABLE_COMPILATION_CACHE"] = "false"

    def printed(is_one):
        with commands.on_one_core(is_one):
            command = [sys.executable, "-c", RELIEF]
            return subprocess.run(command, env=env, capture_output=True, check=True).stdout

    assert printed(True) == printed(False)


def test_vmap_equals_a_loop():
    keys, labels = jax.random.split(KEY, 4), jnp.array([True, False, True, False])
    images, masks = jax.vmap(lambda k, g: phantom.render(k, g, size=64))(keys, labels)
    for i in range(4):
        image, mask = _render(keys[i], labels[i], 64)
        # Sums in another order may turn a rounding to 8 bits.
        np.testing.assert_allclose(images[i].astype(int), image.astype(int), atol=1)
        assert np.mean(images[i] != image) < 0.01
        assert np.mean(masks[i] != mask) < 0.001


@pytest.mark.parametrize(("size", "least"), [(64, 0.9), (2048, 0.97)])
def test_one_patient_looks_alike_at_every_size(size, least):
    def coarse(field):  # means over blocks: 64 x 64, whatever the size
        return field.reshape(64, len(field) // 64, 64, -1).mean(axis=(1, 3))

    (image, mask), (reference, reference_mask) = _render(KEY, False, size), _render(KEY, False)
    assert image.shape == (size, size)
    assert np.corrcoef(coarse(image).ravel(), coarse(reference).ravel())[0, 1] > least
    assert np.abs(coarse(mask) - coarse(reference_mask)).mean() < 0.02


def test_folds_are_the_same_at_256_and_2048_pixels():
    image, _ = _render(KEY, False, 2048)
    reference, mask = _render(KEY, False)
    small = image.reshape(256, 8, 256, 8).mean(axis=(1, 3))
    assert np.corrcoef(small.ravel(), reference.ravel())[0, 1] > 0.95
    assert np.corrcoef(small[mask], reference[mask])[0, 1] > 0.9


# What the label changes, and what not


def test_label_changes_only_pixels_of_the_mucosa():
    for key in jax.random.split(KEY, 8):
        healthy, mask = _render(key, False)
        inflamed, same_mask = _render(key, True)
        np.testing.assert_array_equal(mask, same_mask)
        changed = healthy != inflamed
        assert not changed[~mask].any()
        assert 0.5 < changed[mask].mean() < 0.98  # all but the pool and rounding


def test_label_keeps_the_first_order_statistics_of_the_organ():
    for key in jax.random.split(KEY, 8):
        healthy, mask = _render(key, False)
        inflamed, _ = _render(key, True)
        a, b = healthy[mask].astype(float), inflamed[mask].astype(float)
        assert abs(a.mean() - b.mean()) < 0.5  # of 255
        assert abs(a.std() / b.std() - 1) < 0.02
        levels = np.arange(1, 256)
        cdf_a, cdf_b = ((v[:, None] < levels).mean(axis=0) for v in (a, b))
        assert np.abs(cdf_a - cdf_b).max() < 0.03  # Kolmogorov-Smirnov distance


def _spectrum(key, gastritis):
    """Power of a square in the body of the stomach along and across its axis, near the folds'."""
    image, mask = _render(key, gastritis)
    rows, cols = np.nonzero(mask)
    top = rows.min() + 90
    left = int(cols[(rows > top) & (rows < top + 32)].mean()) - 16
    square = image[top : top + 32, left : left + 32].astype(float)
    power = np.abs(np.fft.fft2((square - square.mean()) * np.outer(*2 * [np.hanning(32)]))) ** 2
    rate = np.abs(np.fft.fftfreq(32))
    fold = (rate > 1 / 10) & (rate < 1 / 6)
    return power[rate < 1 / 16][:, fold].sum(), power[fold][:, rate < 1 / 16].sum()


def test_healthy_folds_run_down_the_stomach_and_gastritis_blurs_their_direction():
    keys = jax.random.split(KEY, 24)
    ratio = {}
    for gastritis in (False, True):
        upright, level = np.transpose([_spectrum(key, gastritis) for key in keys])
        ratio[gastritis] = np.median(upright / level)
    assert ratio[False] > 4
    assert ratio[False] > 2 * ratio[True]


# No shortcut


def _statistics(cohort):
    """Mean, variance and 32-bin histogram of the organ; its area, centroid and bounding box."""
    tones, places = [], []
    for image, mask in zip(cohort.images[..., 0], cohort.masks, strict=True):
        inside = image[mask].astype(float)
        bins = np.histogram(inside, 32, (0, 256))[0] / len(inside)
        tones.append([inside.mean(), inside.var(), *bins])
        rows, cols = np.nonzero(mask)
        box = [rows.min(), rows.max(), cols.min(), cols.max()]
        places.append([len(rows), rows.mean(), cols.mean(), *box])
    return {"tones": np.array(tones), "places": np.array(places, float)}


def _held_out_scores(features, labels, folds=10, ridge=1.0):
    """Logistic regression on standardised features; each fold is scored by the others' fit."""
    scores, fold, signs = np.empty(len(labels)), np.arange(len(labels)) % folds, 2 * labels - 1
    for k in range(folds):
        fit = fold != k
        mean, std = features[fit].mean(axis=0), features[fit].std(axis=0) + 1e-9
        x = np.insert((features - mean) / std, 0, 1, axis=1)

        def loss(w, x=x[fit], y=signs[fit]):
            margin = y * (x @ w)
            slope = -y / (1 + np.exp(margin))
            penalty = np.insert(w[1:], 0, 0)
            value = np.logaddexp(0, -margin).sum() + ridge / 2 * penalty @ penalty
            return value, x.T @ slope + ridge * penalty

        weights = scipy.optimize.minimize(loss, np.zeros(x.shape[1]), jac=True).x
        scores[~fit] = x[~fit] @ weights
    return scores


def test_the_search_for_shortcuts_finds_one_that_was_planted(cohort):
    tones = _statistics(cohort)["tones"]
    tones[:, 0] += 0.8 * tones[:, 0].std() * cohort.labels
    assert metrics.auc(_held_out_scores(tones, cohort.labels), cohort.labels) > 0.65


@pytest.mark.parametrize("kind", ["tones", "places"])
def test_neither_tones_nor_place_tell_the_label(cohort, kind):
    features = _statistics(cohort)[kind]
    assert metrics.auc(_held_out_scores(features, cohort.labels), cohort.labels) <= 0.65
    for column in features.T:
        assert 0.35 <= metrics.auc(column, cohort.labels) <= 0.65


# Solvable, and not trivially


def _train(network, cohort, table, *, steps, batch=48):
    mean, std = cohort.images.mean(), cohort.images.std()
    images = jnp.asarray(cohort.images)

    def cut(image, row, col):
        patches = patching.gather_patches(images, image, row, col, size=PATCH)
        return (patches.astype(jnp.float32) - mean) / std

    params = network.init(jax.random.key(0))
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, steps))

    @jax.jit
    def step(params, state, rows):
        def loss(params):
            logits = network.apply(params, cut(rows.image, rows.row, rows.col))
            return optax.softmax_cross_entropy_with_integer_labels(logits, rows.label).mean()

        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    rng, state = np.random.default_rng(0), optimizer.init(params)
    train = cohort.splits[table.image] == "train"
    classes = [np.flatnonzero(train & (table.label == k)) for k in range(3)]
    for _ in range(steps):
        rows = np.concatenate([rng.choice(rows, batch // 3) for rows in classes])
        params, state = step(params, state, table.select(rows))
    return jax.jit(lambda *place: jnp.argmax(network.apply(params, cut(*place)), axis=1))


def _measure(cohort, *, width, steps):
    """Balanced accuracy on patches and AUC on images, of test patients."""
    network = models.create("convnet", shape=(PATCH, PATCH, 1), classes=3, width=width)
    table = patching.patch_table(cohort, PATCH, STRIDE)
    predict = _train(network, cohort, table, steps=steps)

    corners = patching.patch_corners((256, 256), PATCH, STRIDE)
    tests = np.flatnonzero(cohort.splits == "test")
    predicted = {i: np.asarray(predict(np.full(len(corners), i), *corners.T)) for i in tests}
    index = {tuple(corner): n for n, corner in enumerate(corners)}
    held = table.select(np.isin(table.image, tests))
    patches = [
        predicted[i][index[row, col]]
        for i, row, col in zip(held.image, held.row, held.col, strict=True)
    ]
    accuracy = metrics.balanced_accuracy(np.array(patches), held.label, 3)
    scores = decision.image_scores(np.stack([predicted[i] for i in tests]))
    return accuracy, metrics.auc(scores, cohort.labels[tests])


def test_small_network_on_patches_tells_the_images_of_unseen_patients(cohort):
    accuracy, auc = _measure(cohort, width=16, steps=400)
    assert 0.70 < accuracy < 0.90
    assert 0.90 < auc < 0.995


@pytest.mark.slow
def test_long_training_leaves_some_images_undecided():
    accuracy, auc = _measure(phantom.phantom_cohort(1, patients=400), width=32, steps=1500)
    assert 0.75 < accuracy < 0.92
    assert 0.93 < auc < 0.995


# The cohort


def test_cohort_is_balanced_in_every_split_and_site(cohort):
    assert cohort.images.shape == (240, 256, 256, 1)
    assert cohort.masks.shape == (240, 256, 256)
    assert cohort.class_names == ("irrelevant", "non-gastritis", "gastritis")
    assert cohort.names[7] == "phantom-0007"
    assert len(set(cohort.patients)) == 240
    groups = list(zip(cohort.labels, cohort.splits, cohort.sites, strict=True))
    assert {group: groups.count(group) for group in groups} == {
        (label, split, site): 30
        for label in (0, 1)
        for split in ("train", "test")
        for site in ("site-0", "site-1")
    }
    assert len(set(groups[:20])) > 4  # in no order


def test_cohort_shows_enough_of_the_organ_for_patches_of_every_class(cohort):
    table = patching.patch_table(cohort, PATCH, STRIDE)
    inside = np.bincount(table.image[table.label > 0], minlength=240)
    outside = np.bincount(table.image[table.label == 0], minlength=240)
    assert inside.min() >= 20
    assert outside.min() >= 40


def test_seed_decides_everything_and_each_image_is_its_render():
    small = [phantom.phantom_cohort(seed, patients=8, size=64) for seed in (5, 5, 6)]
    np.testing.assert_array_equal(small[0].images, small[1].images)
    np.testing.assert_array_equal(small[0].labels, small[1].labels)
    assert np.mean(small[0].images != small[2].images) > 0.5
    image, mask = _render(jax.random.split(jax.random.key(5), 8)[2], small[0].labels[2] == 1, 64)
    np.testing.assert_allclose(small[0].images[2, ..., 0].astype(int), image.astype(int), atol=1)
    assert np.mean(small[0].masks[2] != mask) < 0.001


def test_train_share_is_kept_for_each_label():
    cohort = phantom.phantom_cohort(0, patients=8, size=64, train_share=0.75, sites=1)
    for label in (0, 1):
        assert np.sum(cohort.splits[cohort.labels == label] == "train") == 3
    assert set(cohort.sites) == {"site-0"}


@pytest.mark.parametrize(("patients", "share"), [(2, 0.5), (1, 0.5), (8, 0.1), (8, 1.0)])
def test_split_without_a_label_is_refused(patients, share):
    with pytest.raises(
        UserError, match=rf"{patients} phantom patients .* {share} .* more patients"
    ):
        phantom.phantom_cohort(0, patients=patients, size=64, train_share=share)


@pytest.mark.parametrize("wrong", [{"patients": 0}, {"size": 0}, {"train_share": 1.5}])
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        phantom.phantom_cohort(0, **{"patients": 8, "size": 64, **wrong})
