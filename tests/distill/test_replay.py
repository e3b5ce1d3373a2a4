import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gxdistill.distill import augment, init, inner, replay
from gxdistill.errors import UserError
from tests import toy

NETWORK = toy.network()


@pytest.fixture(scope="module")
def distilled():
    """Two batches, gone through twice, with soft labels."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 3, *toy.SHAPE)).astype(np.float32)
    data = init.from_images(
        images, np.zeros((2, 3), int), toy.CLASSES, epochs=2, lr=0.1, rule="raw"
    )
    labels = rng.normal(size=(2, 3, toy.CLASSES)).astype(np.float32)
    return data.replace(labels=labels, log_lr=np.log(np.float32([0.1, 0.2, 0.3, 0.4])))


@jax.jit
def _descend(params, images, targets, lr):
    def loss(params):
        logits = NETWORK.apply(params, images)
        return -jnp.mean(jnp.sum(targets * jax.nn.log_softmax(logits), axis=1))

    return jax.tree.map(lambda p, g: p - lr * g, params, jax.grad(loss)(params))


def _by_hand(key, distilled, read):
    params = NETWORK.init(key)
    for epoch in range(2):
        for step in range(2):
            lr = np.exp(distilled.log_lr[2 * epoch + step])
            params = _descend(params, distilled.images[step], read(distilled.labels[step]), lr)
    return params


@pytest.mark.parametrize(("rule", "read"), [("raw", lambda y: y), ("softmax", jax.nn.softmax)])
def test_replay_equals_a_plain_loop(distilled, rule, read):
    key = jax.random.key(1)
    actual = replay.replay(NETWORK, NETWORK.init(key), distilled, rule=rule)
    expected = _by_hand(key, distilled, read)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), actual, expected
    )


def _ordinarily(params, images, targets, keys):
    """SGD with momentum in Python, half of the images at a time, gradients cut to length 5."""
    trace, steps, rising = jax.tree.map(np.zeros_like, params), len(keys), len(keys) // 10
    for step, key in enumerate(keys):
        before, chosen = params, jax.random.permutation(key, len(images))[: len(images) // 2]
        params = _descend(params, images[chosen], targets[chosen], 1.0)  # p - g
        grads = jax.tree.map(lambda p, moved: p - moved, before, params)
        length = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(grads)))
        share = min(1.0, 5.0 / length)
        trace = jax.tree.map(lambda m, g, share=share: 0.9 * m + share * g, trace, grads)
        fallen = (1 - np.cos(np.pi * (step - rising) / (steps - rising))) / 2
        rate = 0.02 * (step / rising if step < rising else 1 - fallen)
        params = jax.tree.map(lambda p, m, rate=rate: p - rate * m, before, trace)
    return params


@pytest.mark.parametrize(
    ("rule", "read", "strength"),
    [("softmax", jax.nn.softmax, 1), ("raw", lambda y: y, 100)],  # whose gradients are all cut
)
def test_ordinary_training_equals_a_plain_loop_over_standardised_images(
    distilled, rule, read, strength
):
    key = jax.random.key(1)
    images = np.asarray(distilled.images).reshape(6, *toy.SHAPE)
    images = np.stack([(image - image.mean()) / image.std() for image in images])
    targets = read(strength * distilled.labels.reshape(6, -1))
    expected = _ordinarily(NETWORK.init(key), images, targets, jax.random.split(key, 30))
    images, labels = 40 * distilled.images + 7, strength * distilled.labels
    scaled = distilled.replace(images=images, labels=labels)
    actual = replay.ordinary(
        NETWORK, NETWORK.init(key), scaled, key, rule=rule, steps=30, augmentations=()
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), actual, expected
    )


def test_ordinary_training_changes_each_image_anew(distilled):
    key = jax.random.key(1)
    start = NETWORK.init(key)
    options = {"rule": "raw", "steps": 3}
    plain = replay.ordinary(NETWORK, start, distilled, key, augmentations=(), **options)
    first, again = (replay.ordinary(NETWORK, start, distilled, key, **options) for _ in range(2))
    other = replay.ordinary(NETWORK, start, distilled, jax.random.key(2), **options)
    for a, b, c, d in zip(*map(jax.tree.leaves, (plain, first, again, other)), strict=True):
        np.testing.assert_array_equal(b, c)
        assert np.isfinite(b).all()
        assert (a != b).any()
        assert (b != d).any()


def test_replay_with_momentum_equals_a_plain_loop(distilled):
    key = jax.random.key(1)
    params = NETWORK.init(key)
    trace = jax.tree.map(np.zeros_like, params)
    for t in range(4):
        images, labels, lr = distilled.images[t % 2], distilled.labels[t % 2], distilled.log_lr[t]
        grads = jax.tree.map(
            lambda p, q: np.asarray(p - q, np.float64),
            params,
            _descend(params, images, labels, jnp.float32(1)),
        )
        trace = jax.tree.map(lambda m, g: 0.7 * m + g, trace, grads)
        params = jax.tree.map(lambda p, m, lr=lr: np.float32(p - np.exp(lr) * m), params, trace)
    optimiser = inner.create("momentum", decay=0.7)
    actual = replay.replay(NETWORK, NETWORK.init(key), distilled, rule="raw", inner=optimiser)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), actual, params
    )


def test_replay_many_trains_one_network_for_each_key(distilled):
    keys = jax.random.split(jax.random.key(2), 3)
    many = replay.replay_many(NETWORK, keys, distilled, rule="raw")
    assert len(np.unique(many["first"].reshape(3, -1), axis=0)) == 3
    for i, key in enumerate(keys):
        expected = _by_hand(key, distilled, lambda y: y)
        for name, leaf in many.items():
            np.testing.assert_allclose(leaf[i], expected[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", inner.OPTIMIZERS)
def test_augmentations_change_each_image_of_each_step_by_a_draw_of_its_own(distilled, name):
    names, key, optimiser = ("shift", "flip", "gamma"), jax.random.key(4), inner.create(name)
    start = NETWORK.init(jax.random.key(1))

    def seen(t, i):
        own = jax.random.split(jax.random.fold_in(key, t), 3)[i]
        return augment.augment(distilled.images[t % 2, i], own, names)

    images = jnp.stack([jnp.stack([seen(t, i) for i in range(3)]) for t in range(4)])
    assert len(np.unique(images.reshape(12, -1), axis=0)) == 12  # 6 images, seen twice each.
    labels = jnp.concatenate([distilled.labels, distilled.labels])
    once = dataclasses.replace(distilled, images=images, labels=labels)
    expected = replay.replay(NETWORK, start, once, rule="softmax", inner=optimiser)
    actual = replay.replay(
        NETWORK, start, distilled, key, rule="softmax", inner=optimiser, augmentations=names
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), actual, expected
    )


def test_augmentations_ask_for_a_key(distilled):
    start = NETWORK.init(jax.random.key(1))
    with pytest.raises(ValueError, match=r"^Augmentations are drawn: give `key`"):
        replay.replay(NETWORK, start, distilled, rule="raw", augmentations=("flip",))


@pytest.mark.parametrize("log_lr", [100.0, np.nan])
def test_rates_at_which_training_diverges_are_the_users_to_mend(distilled, log_lr):
    wild = dataclasses.replace(distilled, log_lr=np.full_like(distilled.log_lr, log_lr))
    keys = jax.random.split(jax.random.key(2), 3)
    with pytest.raises(
        UserError, match=r"Training network 1 of 3 .* diverged: .* not finite\. Use"
    ):
        replay.replay_many(NETWORK, keys, wild, rule="raw")


def test_the_network_that_diverged_is_named():
    sound, broken = {"w": jnp.ones(2)}, {"w": jnp.array([1.0, np.inf])}
    replay.check_finite([sound, sound])
    with pytest.raises(UserError, match="network 2 of 3"):
        replay.check_finite([sound, broken, sound])
