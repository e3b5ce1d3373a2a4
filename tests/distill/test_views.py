import jax
import jax.numpy as jnp
import numpy as np

from gxdistill.distill import synthesis, views
from gxdistill.pytrees import Distilled

# Image i and label i belong together.
NUMBERS = jnp.arange(6.0).reshape(3, 2)
DATA = Distilled(NUMBERS[..., None, None, None], NUMBERS[..., None], jnp.log(jnp.arange(1.0, 7)))
KEYS = jax.random.split(jax.random.key(0), 20)


def test_as_learned_is_what_was_learned():
    jax.tree.map(np.testing.assert_array_equal, views.as_learned(DATA, KEYS[0]), DATA)


def test_a_shared_rate_is_the_geometric_mean_and_stays_one():
    data = views.shared_rate(DATA, KEYS[0])
    expected = np.prod(np.arange(1.0, 7)) ** (1 / 6)
    np.testing.assert_allclose(np.exp(data.log_lr), np.full(6, expected), rtol=1e-6)
    np.testing.assert_array_equal(data.images, DATA.images)
    weights = jnp.arange(6.0)  # each step's own share in the loss
    equal = DATA.replace(log_lr=jnp.full(6, -2.0))
    grads = jax.grad(lambda d: jnp.sum(weights * views.shared_rate(d, KEYS[0]).log_lr))(equal)
    assert len(set(np.asarray(grads.log_lr))) == 1


def test_an_order_free_view_mixes_the_batches_and_keeps_images_with_their_labels():
    seen = set()
    for key in KEYS:
        data = views.order_free(DATA, key)
        order = np.asarray(data.labels).ravel()
        np.testing.assert_array_equal(np.sort(order), np.arange(6))
        np.testing.assert_array_equal(np.asarray(data.images).ravel(), order)
        assert len(set(np.asarray(data.log_lr))) == 1
        seen.add(tuple(order))
    assert len(seen) == len(KEYS)  # of 720 orders


def test_shuffled_epochs_hold_every_image_once_each_in_an_order_of_its_own():
    data = views.shuffled(DATA, KEYS[0])  # two epochs of three batches of two
    assert data.labels.shape == (6, 2, 1)
    first, second = np.asarray(data.labels).reshape(2, 6)
    np.testing.assert_array_equal(np.sort([first, second]), [range(6)] * 2)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(np.ravel(data.images), np.ravel(data.labels))
    np.testing.assert_array_equal(data.log_lr, views.shared_rate(DATA, KEYS[0]).log_lr)


def test_hard_labels_are_those_that_the_soft_ones_prefer():
    soft = jnp.array([[[0.2, 1.7, -0.3], [0.5, 0.1, 0.4]]])
    data = views.hard_labels(DATA.replace(labels=soft), KEYS[0])
    np.testing.assert_array_equal(data.labels, [[[0, 1, 0], [1, 0, 0]]])


def test_images_are_made_before_they_are_viewed():
    bases = synthesis.bases(2)
    learned = DATA.replace(images=bases.init(DATA.images, KEYS[0]))
    data = views.synthesised(bases, views.order_free)(learned, KEYS[1])
    images = bases.synthesise(learned.images)
    expected = views.order_free(DATA.replace(images=images), KEYS[1])
    jax.tree.map(np.testing.assert_array_equal, data, expected)
