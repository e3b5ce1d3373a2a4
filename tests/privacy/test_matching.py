import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gxdistill.privacy import features, matching, statistics
from gxdistill.privacy.prior import smooth_noise
from gxdistill.privacy.statistics import Released

SHAPE = (8, 8, 1)


@pytest.fixture(scope="module")
def described():
    return features.create(
        "cell_moments", shape=SHAPE, prior="smooth_noise", count=8, pixels=6, drawn=100
    )


@pytest.fixture(scope="module")
def images():
    """Two classes: one bright on the left, one bright above."""
    noise = 0.15 * (smooth_noise(jax.random.key(1), 60, SHAPE) - 0.5)
    ramp = jnp.linspace(0.35, 0.65, 8)
    return jnp.concatenate(
        [noise[:30] + ramp[None, None, :, None], noise[30:] + ramp[None, :, None, None]]
    )


@pytest.fixture(scope="module")
def released(described, images):
    summed = statistics.summarise(
        described, lambda rows: (images[rows], np.repeat([0, 1], 30)[rows]), np.arange(60), 2
    )
    return Released(summed, {name: jnp.float32(1e-3) for name in vars(summed)})


CLASSES = jnp.repeat(jnp.arange(2), 30)


def test_the_images_that_statistics_are_of_are_at_no_distance(described, images, released):
    assert matching.distance(described, released, images, CLASSES) < 1e-6
    assert matching.distance(described, released, images[::-1], CLASSES) > 0.1  # the other classes


def test_the_distance_equals_a_loop(described, released):
    images = smooth_noise(jax.random.key(4), 7, SHAPE)
    classes = np.array([0, 1, 1, 0, 1, 0, 0])
    f, q = (
        np.asarray(v, np.float64) for v in (described.describe(images), described.pixels(images))
    )
    target = jax.tree.map(lambda x: np.asarray(x, np.float64), released.statistics)
    total, pairs = target.counts.sum(), []
    pairs.append((f.T @ f / 7, target.second / total))
    for vectors, sums in ((f, target.sums), (q, target.pixel_sums)):
        ours = np.stack([vectors[classes == k].mean(axis=0) for k in (0, 1)])
        pairs.append((ours, sums / target.counts[:, None]))
    pairs.append((q.T @ q / 7, target.pixel_second.sum(axis=0) / total))
    loop = sum(((a - b) ** 2).sum() / (b**2).sum() for a, b in pairs)
    ours = matching.distance(described, released, images, jnp.asarray(classes))
    np.testing.assert_allclose(ours, loop, rtol=1e-3)


def test_matching_brings_images_nearer_and_keeps_them_images(described, released):
    start = smooth_noise(jax.random.key(2), 60, SHAPE)
    loop = matching.matcher(described, CLASSES, rate=0.05, steps=25)
    state, update = loop.init(start, jax.random.key(0)), jax.jit(loop.update)
    distances = []
    for _ in range(25):
        state, distance = update(state, released)
        distances.append(float(distance))
    assert distances[-1] < 0.2 * distances[0]
    assert state.learned.min() >= 0
    assert state.learned.max() <= 1


def test_drawn_images_have_the_released_moments(described, released):
    classes = jnp.repeat(jnp.arange(2), 3000)
    drawn = described.pixels(matching.draw(jax.random.key(3), described, released, classes))
    target = released.statistics
    for k in (0, 1):
        mean = target.pixel_sums[k] / target.counts[k]
        spread = target.pixel_second[k] / target.counts[k] - jnp.outer(mean, mean)
        of_class = np.asarray(drawn[classes == k])
        np.testing.assert_allclose(of_class.mean(axis=0), mean, atol=0.02)
        np.testing.assert_allclose(np.cov(of_class.T), spread, atol=0.05 * np.trace(spread))


def test_variance_that_may_be_noise_is_drawn_as_the_priors(described, released):
    loud = Released(released.statistics, {n: jnp.float32(1e3) for n in released.deviations})
    classes = jnp.repeat(jnp.arange(2), 4000)
    drawn = np.asarray(described.pixels(matching.draw(jax.random.key(3), described, loud, classes)))
    target = released.statistics
    for k in (0, 1):
        mean = target.pixel_sums[k] / target.counts[k]
        spread = target.pixel_second[k] / target.counts[k] - jnp.outer(mean, mean)
        variances = np.asarray(described.pixels.variances)
        expected = variances * float(jnp.trace(spread)) / variances.sum()
        ours = np.cov(drawn[4000 * k : 4000 * (k + 1)].T)
        np.testing.assert_allclose(np.diag(ours), expected, rtol=0.1, atol=0.02 * expected.max())


def test_fine_structure_is_what_coordinates_do_not_hold(described, released):
    plain, fine = (
        matching.draw(jax.random.key(3), described, released, CLASSES, detail=detail)
        for detail in (0.0, 0.3)
    )
    assert jnp.abs(described.pixels.rest(plain)).max() < 1e-4
    assert described.pixels.rest(fine).std() > 1e-3
