import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gxdistill.distill import meta_gradient, synthesis, truncation, views
from gxdistill.distill.augment import augment
from gxdistill.distill.meta_gradient import after_training
from gxdistill.pytrees import Distilled
from tests import toy

pytestmark = pytest.mark.usefixtures("x64")

NETWORK = toy.network(hidden=4)
KNOWN, KEY = jax.random.key(7), jax.random.key(8)
RANDOM_INIT = jax.jit(after_training(NETWORK, rule="softmax"))
KNOWN_INIT = jax.jit(after_training(NETWORK, rule="softmax", known_key=KNOWN))


@pytest.fixture(scope="module")
def data():
    """Two batches, gone through twice at four rates that differ, so that their order matters."""
    rng = np.random.default_rng(0)
    return Distilled(
        rng.normal(size=(2, 2, *toy.SHAPE)),
        rng.normal(size=(2, 2, toy.CLASSES)),
        np.log([0.3, 0.4, 0.6, 0.8]),
    )


@pytest.fixture(scope="module")
def batch():
    batch = toy.batch(np.random.default_rng(1), 6)
    return dataclasses.replace(batch, images=np.asarray(batch.images, np.float64))


def _assert_close(actual, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), actual, expected)


@pytest.mark.parametrize("field", ["images", "labels", "log_lr"])
def test_finite_differences_tell_the_same_meta_gradient(field, data, batch):
    _, grads = KNOWN_INIT(data, KEY, batch)
    centre, h = getattr(data, field), 1e-5
    direction = np.random.default_rng(2).normal(size=centre.shape)
    ahead, behind = (
        KNOWN_INIT(dataclasses.replace(data, **{field: point}), KEY, batch)[0]
        for point in (centre + h * direction, centre - h * direction)
    )
    slope = np.vdot(getattr(grads, field), direction)
    np.testing.assert_allclose(slope, (ahead - behind) / (2 * h), rtol=1e-6)


def test_the_loss_is_that_of_a_network_trained_by_hand(data, batch):
    @jax.jit
    def descend(params, images, labels, log_lr):
        def inner(params):
            logits = NETWORK.apply(params, images)
            return -jnp.mean(jnp.sum(jax.nn.softmax(labels) * jax.nn.log_softmax(logits), axis=1))

        grads = jax.grad(inner)(params)
        return jax.tree.map(lambda p, g: p - jnp.exp(log_lr) * g, params, grads)

    params = NETWORK.init(KEY)
    for t in range(4):
        params = descend(params, data.images[t % 2], data.labels[t % 2], data.log_lr[t])
    probabilities = np.asarray(jax.nn.softmax(NETWORK.apply(params, batch.images)))
    expected = -np.mean(np.log(probabilities[np.arange(6), batch.targets]))
    np.testing.assert_allclose(RANDOM_INIT(data, KEY, batch)[0], expected, rtol=1e-10)


def test_a_known_init_is_the_same_at_every_step(data, batch):
    here, there = (KNOWN_INIT(data, key, batch) for key in (KEY, jax.random.key(9)))
    jax.tree.map(np.testing.assert_array_equal, here, there)
    _assert_close(here, RANDOM_INIT(data, KNOWN, batch))  # whose key draws the same weights


def test_a_random_init_differs_from_step_to_step(data, batch):
    one, same, other = (RANDOM_INIT(data, key, batch) for key in (KEY, KEY, KNOWN))
    jax.tree.map(np.testing.assert_array_equal, one, same)
    assert one[0] != other[0]


@pytest.mark.parametrize("at_once", [None, 2])
def test_several_networks_give_the_mean_of_the_single_ones(data, batch, at_once):
    step = after_training(NETWORK, rule="softmax", networks=3, at_once=at_once)
    several = jax.jit(step)(data, KEY, batch)
    singles = [RANDOM_INIT(data, key, batch) for key in jax.random.split(KEY, 3)]
    assert len({float(loss) for loss, _ in singles}) == 3
    _assert_close(several, jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *singles))


def test_real_and_distilled_images_are_augmented_by_one_draw(data, batch):
    names = ("turn", "brightness")
    step = jax.jit(after_training(NETWORK, rule="softmax", augmentations=names))
    value, grads = step(data, KEY, batch)
    draw = jax.random.fold_in(KEY, meta_gradient._AUGMENT)
    by_hand = data.replace(images=augment(jnp.asarray(data.images), draw, names))
    real = dataclasses.replace(batch, images=augment(jnp.asarray(batch.images), draw, names))
    expected, plain = RANDOM_INIT(by_hand, KEY, real)
    np.testing.assert_allclose(value, expected, rtol=1e-10)
    _assert_close(grads.labels, plain.labels)
    assert not np.allclose(value, RANDOM_INIT(data, KEY, batch)[0])


def test_a_view_is_what_is_trained_on_and_what_is_learned_gets_the_gradient(data, batch):
    bases = synthesis.bases(2)
    learned = data.replace(images=bases.init(jnp.asarray(data.images), KNOWN))
    step = jax.jit(after_training(NETWORK, rule="softmax", view=views.synthesised(bases)))
    value, grads = step(learned, KEY, batch)
    plain = data.replace(images=bases.synthesise(learned.images))
    expected, by_pixel = RANDOM_INIT(plain, KEY, batch)
    np.testing.assert_allclose(value, expected, rtol=1e-10)
    coefficients = np.einsum("sbhwc,nhwc->sbn", by_pixel.images, learned.images["bases"])
    _assert_close(grads.images["coefficients"], coefficients)


def test_a_known_init_does_not_fix_the_window(data, batch):
    train = truncation.random_window(1)
    step = jax.jit(after_training(NETWORK, rule="softmax", train=train, known_key=KNOWN))
    losses = {float(step(data, key, batch)[0]) for key in jax.random.split(KEY, 12)}
    assert len(losses) == 4  # one for each of T steps that the window may end with


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="`networks` is 0"):
        after_training(NETWORK, rule="raw", networks=0)
    with pytest.raises(ValueError, match="`networks` is 2 with a known init"):
        after_training(NETWORK, rule="raw", networks=2, known_key=KNOWN)
