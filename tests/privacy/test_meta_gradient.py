"""The private meta-gradient, held against loops over patients in float64."""

import dataclasses

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from gxdistill.distill import meta_gradient as plain
from gxdistill.errors import UserError
from gxdistill.privacy.meta_gradient import PLACES, after_training
from gxdistill.privacy.sampling import PatientBatch
from gxdistill.pytrees import Distilled
from tests import toy

pytestmark = pytest.mark.usefixtures("x64")

NETWORK = toy.network(hidden=4)
KEY = jax.random.key(8)
N, M, CLIP, DIVISOR = 5, 3, 0.3, 4.0
CLIPS = {"weights": 1.0, "distilled": 0.3}  # Each between the patients' own norms.
PRIVATE = {"rule": "softmax", "clip": CLIP, "divisor": DIVISOR}


@pytest.fixture(scope="module")
def x64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return Distilled(
        rng.normal(size=(2, 2, *toy.SHAPE)),
        rng.normal(size=(2, 2, toy.CLASSES)),
        np.log([0.3, 0.4, 0.6, 0.8]),
    )


@pytest.fixture(scope="module")
def batch():
    """Four patients of different sizes of gradient, and a fifth who was not drawn."""
    rng = np.random.default_rng(1)
    images = (
        rng.normal(size=(N, M, *toy.SHAPE)) * np.array([0.1, 1, 2, 5, 1])[:, None, None, None, None]
    )
    targets = rng.integers(0, toy.CLASSES, (N, M))
    here = np.array([True, True, True, True, False])
    return PatientBatch(images, targets, here, here)


def _weights(data, key):
    """Trains by a loop, out of the inner loss and nothing else of the package."""

    def inner(params, images, labels):
        logits = NETWORK.apply(params, images)
        return -jnp.mean(jnp.sum(jax.nn.softmax(labels) * jax.nn.log_softmax(logits), axis=1))

    params = NETWORK.init(key)
    for t in range(4):
        grads = jax.grad(inner)(params, data.images[t % 2], data.labels[t % 2])
        params = jax.tree.map(lambda p, g, t=t: p - jnp.exp(data.log_lr[t]) * g, params, grads)
    return params


def _outer(params, images, targets):
    logs = jax.nn.log_softmax(NETWORK.apply(params, images))
    return -jnp.mean(logs[jnp.arange(len(targets)), targets])


def _clipped(tree, clip):
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    length = np.sqrt(sum((leaf**2).sum() for leaf in leaves))
    return [leaf / max(1.0, length / clip) for leaf in leaves], length


def _by_hand(data, batch, keys, place):
    """Sums, patient by patient, what is clipped; then divides; then pulls back, if it is due."""
    total, lengths = None, []
    for images, targets, here in zip(batch.images, batch.targets, batch.present, strict=True):
        if not here:
            continue

        def loss(weights, images=images, targets=targets):
            return sum(_outer(w, images, targets) for w in weights) / len(keys)

        if place == "weights":
            grads = jax.grad(loss)([_weights(data, key) for key in keys])
        else:
            grads = jax.grad(lambda d: loss([_weights(d, key) for key in keys]))(data)
        part, length = _clipped(grads, CLIPS[place])
        lengths.append(length)
        total = part if total is None else [a + b for a, b in zip(total, part, strict=True)]
    mean = [leaf / DIVISOR for leaf in total]
    if place == "weights":
        trained, back = jax.vjp(lambda d: [_weights(d, key) for key in keys], data)
        (grads,) = back(jax.tree.unflatten(jax.tree.structure(trained), mean))
        mean = jax.tree.leaves(grads)
    return mean, lengths


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("networks", "patients_at_once"), [(1, None), (1, 2), (2, None)])
def test_a_loop_over_patients_gives_the_same(data, batch, place, networks, patients_at_once):
    step = after_training(
        NETWORK,
        noise_multiplier=0.0,
        place=place,
        networks=networks,
        patients_at_once=patients_at_once,
        **{**PRIVATE, "clip": CLIPS[place]},
    )
    loss, grads = jax.jit(step)(data, KEY, batch)
    keys = [KEY] if networks == 1 else list(jax.random.split(KEY, networks))
    expected, lengths = _by_hand(data, batch, keys, place)
    assert min(lengths) < CLIPS[place] < max(lengths)  # Some are clipped, and some are not.
    for ours, theirs in zip(jax.tree.leaves(grads), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-15)
    each = [
        np.mean([_outer(_weights(data, key), x, y) for key in keys])
        for x, y in zip(batch.images[:4], batch.targets[:4], strict=True)
    ]
    np.testing.assert_allclose(loss, np.mean(each), rtol=1e-10)


@pytest.mark.filterwarnings("ignore:optax.global_norm is deprecated")
def test_another_library_clips_to_the_same(data, batch):
    from jax_privacy import clipping

    drawn = batch.images[:4], batch.targets[:4]
    weights = clipping.clipped_grad(
        _outer, l2_clip_norm=CLIP, batch_argnums=(1, 2), keep_batch_dim=False
    )
    pulled = clipping.clipped_grad(
        lambda d, x, y: _outer(_weights(d, KEY), x, y),
        l2_clip_norm=CLIP,
        batch_argnums=(1, 2),
        keep_batch_dim=False,
    )

    @jax.jit
    def clipped_at_the_weights(data):
        trained, back = jax.vjp(lambda d: _weights(d, KEY), data)
        return back(weights(trained, *drawn))[0]

    expected = {
        "weights": clipped_at_the_weights(data),
        "distilled": jax.jit(pulled)(data, *drawn),
    }
    for place in PLACES:
        step = jax.jit(after_training(NETWORK, noise_multiplier=0.0, place=place, **PRIVATE))
        _, grads = step(data, KEY, batch)
        jax.tree.map(
            lambda ours, theirs: np.testing.assert_allclose(ours, theirs / DIVISOR, rtol=1e-7),
            grads,
            expected[place],
        )
    assert pulled.sensitivity() == CLIP


def test_without_clipping_it_is_the_plain_meta_gradient(data, batch):
    private = {**PRIVATE, "clip": 1e9, "divisor": 4.0}
    whole = plain.Batch(
        np.concatenate(batch.images[:4]), np.concatenate(batch.targets[:4]), np.zeros(12, int)
    )
    names = ("flip", "brightness")
    loss, expected = jax.jit(plain.after_training(NETWORK, rule="softmax", augmentations=names))(
        data, KEY, whole
    )
    step = after_training(NETWORK, noise_multiplier=0.0, augmentations=names, **private)
    ours, grads = jax.jit(step)(data, KEY, batch)
    np.testing.assert_allclose(ours, loss, rtol=1e-10)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-14), grads, expected
    )


def test_noise_is_gaussian_of_the_stated_deviation_and_of_each_step_anew(data, batch):
    """At the distilled data, where it is seen as it is."""
    quiet, loud = (
        jax.jit(after_training(NETWORK, noise_multiplier=z, place="distilled", **PRIVATE))
        for z in (0.0, 3.0)
    )
    noise = []
    for step in range(40):
        key = jax.random.fold_in(KEY, step)
        parts = jax.tree.map(jnp.subtract, loud(data, key, batch)[1], quiet(data, key, batch)[1])
        noise.append(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(parts)]))
    scale = 3.0 * CLIP / DIVISOR
    assert scipy.stats.kstest(np.ravel(noise), "norm", args=(0, scale)).pvalue > 1e-3
    assert scipy.stats.kstest(np.ravel(noise), "norm", args=(0, 1.1 * scale)).pvalue < 1e-3
    between = np.corrcoef(noise)[np.triu_indices(40, 1)]
    assert np.abs(between).max() < 6 / np.sqrt(len(noise[0]))


def test_noise_at_the_weights_is_pulled_back_with_the_gradient(data, batch):
    known = jax.random.key(7)
    quiet, loud = (
        jax.jit(after_training(NETWORK, noise_multiplier=z, known_key=known, **PRIVATE))
        for z in (0.0, 3.0)
    )
    grads = quiet(data, KEY, batch)[1].log_lr  # The same at every step, of one known start.
    parts = [
        np.ravel(loud(data, jax.random.fold_in(KEY, step), batch)[1].log_lr - grads)
        for step in range(600)
    ]
    flat = jax.jit(lambda d: jax.flatten_util.ravel_pytree(_weights(d, known))[0])
    jacobian = jax.jit(jax.jacfwd(lambda rates: flat(data.replace(log_lr=rates))))(data.log_lr)
    covariance = np.asarray(jacobian).T @ np.asarray(jacobian)
    whitened = np.linalg.solve(np.linalg.cholesky(covariance), np.transpose(parts))
    scale = 3.0 * CLIP / DIVISOR
    assert scipy.stats.kstest(np.ravel(whitened), "norm", args=(0, scale)).pvalue > 1e-3
    assert scipy.stats.kstest(np.ravel(whitened), "norm", args=(0, 1.15 * scale)).pvalue < 1e-3


@pytest.mark.parametrize("place", PLACES)
def test_a_patient_whose_gradient_is_not_finite_has_no_part(data, batch, place):
    images = np.array(batch.images)
    images[1] = np.nan
    harmed = dataclasses.replace(batch, images=images)
    absent = np.array([True, False, True, True, False])
    step = jax.jit(after_training(NETWORK, noise_multiplier=1.0, place=place, **PRIVATE))
    loss, grads = step(data, KEY, harmed)
    expected_loss, expected = step(data, KEY, dataclasses.replace(batch, counted=absent))
    np.testing.assert_allclose(loss, expected_loss)
    jax.tree.map(np.testing.assert_allclose, grads, expected)


def test_nobody_drawn_is_noise_alone(data, batch):
    nobody = dataclasses.replace(batch, present=np.zeros(N, bool), counted=np.zeros(N, bool))
    step = jax.jit(after_training(NETWORK, noise_multiplier=1.0, **PRIVATE))
    loss, grads = step(data, KEY, nobody)
    assert loss == 0
    assert all(np.isfinite(leaf).all() and np.any(leaf) for leaf in jax.tree.leaves(grads))


def test_a_batch_that_is_no_sample_of_patients_is_refused(data):
    step = after_training(NETWORK, noise_multiplier=1.0, **PRIVATE)
    balanced = toy.batch(np.random.default_rng(1), 6)
    with pytest.raises(UserError, match=r"takes a Poisson sample of patients, .* and not a Batch"):
        step(data, KEY, balanced)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"clip": 0.0}, "`clip` is 0"),
        ({"divisor": 0.0}, "`divisor` is 0"),
        ({"noise_multiplier": -1.0}, "`noise_multiplier` is -1"),
        ({"place": "images"}, "`place` is 'images'"),
        ({"networks": 2, "known_key": KEY}, "`networks` is 2 with a known init"),
    ],
)
def test_impossible_settings_are_refused(change, reason):
    with pytest.raises(ValueError, match=reason):
        after_training(NETWORK, **{**PRIVATE, "noise_multiplier": 1.0, **change})
