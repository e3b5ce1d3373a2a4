import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gxdistill.privacy import features, statistics
from gxdistill.privacy.ledger import BudgetError, Ledger, calibrate
from gxdistill.privacy.statistics import Parts, Statistics

D, K, CLASSES = 5, 4, 3


def _bounded(rng, *shape):
    """Vectors in a ball of radius 1, some on its surface."""
    vectors = rng.normal(size=shape)
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.float32(vectors * np.minimum(1, 2 * rng.random(shape[:-1]))[..., None])


def _statistics(seed=0, images=40):
    rng = np.random.default_rng(seed)
    vectors = jnp.asarray(_bounded(rng, images, D)), jnp.asarray(_bounded(rng, images, K))
    labels = rng.integers(0, CLASSES, images)
    return vectors, labels, statistics.weighted(vectors, jax.nn.one_hot(labels, CLASSES))


def test_statistics_equal_a_loop_over_patients():
    described = features.create(
        "cell_moments", shape=(8, 8, 1), prior="smooth_noise", count=D, pixels=K, drawn=50
    )
    rng = np.random.default_rng(1)
    images, labels = rng.random((9, 8, 8, 1), np.float32), rng.integers(0, CLASSES, 9)
    patients = np.array([7, 3, 3, 5, 3, 7, 8, 9, 9])
    ours = statistics.summarise(
        described, lambda rows: (jnp.asarray(images[rows]), labels[rows]), patients, CLASSES
    )
    loop = Statistics(
        np.zeros((D, D)), np.zeros((CLASSES, D)), np.zeros((CLASSES, K, K)),
        np.zeros((CLASSES, K)), np.zeros(CLASSES),
    )  # fmt: skip
    for patient in set(patients.tolist()):
        rows = np.flatnonzero(patients == patient)
        for row in rows:
            f = np.asarray(described.describe(images[row][None])[0], np.float64)
            q = np.asarray(described.pixels(images[row][None])[0], np.float64)
            k, share = labels[row], 1 / len(rows)
            loop.second[:] += share * np.outer(f, f)
            loop.sums[k] += share * f
            loop.pixel_second[k] += share * np.outer(q, q)
            loop.pixel_sums[k] += share * q
            loop.counts[k] += share
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ours, loop)
    np.testing.assert_allclose(ours.counts.sum(), 5, rtol=1e-6)  # patients, not images


def test_a_patient_moves_what_is_released_by_1_at_most():
    """Adds and removes one patient in each of 1,000 random cohorts, of any number of images."""
    rng, cohorts, images = np.random.default_rng(2), 1000, 8
    vectors = _bounded(rng, cohorts, images, D), _bounded(rng, cohorts, images, K)
    extreme = rng.random((cohorts, 1, 1)) < 0.3  # All images of a cohort are the same, and longest.
    vectors = [
        np.where(extreme, v[:, :1] / np.linalg.norm(v[:, :1], axis=2)[..., None], v)
        for v in vectors
    ]
    labels = np.where(extreme[..., 0], 1, rng.integers(0, CLASSES, (cohorts, images)))
    patients = rng.integers(0, 4, (cohorts, images))
    sizes = (patients[:, :, None] == patients[:, None]).sum(axis=2)
    shares = jax.nn.one_hot(labels, CLASSES) / sizes[..., None]
    stay = patients != patients[:, :1]  # The patient of the first image leaves.

    def packed(f, q, shares):
        return statistics.pack(statistics.weighted((f, q), shares), Parts())

    with_, without = (
        jax.vmap(packed)(*map(jnp.asarray, vectors), shares * kept)
        for kept in (np.ones((cohorts, images, 1)), stay[..., None])
    )
    moved = jax.tree.leaves(jax.tree.map(jnp.subtract, with_, without))
    lengths = np.sqrt(sum(np.square(np.float64(m)).reshape(cohorts, -1).sum(axis=1) for m in moved))
    assert lengths.max() <= 1 + 1e-5
    assert lengths[extreme.ravel()].min() > 0.999  # The bound is reached.


@pytest.mark.parametrize("parts", [Parts(), Parts(second=3, counts=0.01)])
def test_packed_statistics_are_as_long_as_their_matrices_and_come_back(parts):
    _, _, summed = _statistics()
    packed = statistics.pack(summed, parts)
    weights = parts.weights()
    assert sum(weight**2 for weight in weights.values()) == pytest.approx(1)
    for name, values in packed.items():
        whole = np.linalg.norm(np.ravel(getattr(summed, name)))
        assert np.linalg.norm(np.ravel(values)) == pytest.approx(weights[name] * whole, rel=1e-5)
    back = statistics.unpack(packed, parts)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), back, summed)


def test_the_noise_is_the_one_that_is_booked():
    _vectors, _, summed = _statistics()
    wide = jnp.zeros((100, 100))
    summed = Statistics(
        wide, jnp.zeros((3, 100)), jnp.zeros((3, 60, 60)), summed.pixel_sums, summed.counts
    )
    ledger = Ledger(delta=1e-5, budget=2.0)
    noise = calibrate(2.0, 1e-5)
    released, after = statistics.release(jax.random.key(0), summed, Parts(), noise, ledger)
    (event,) = after.events
    assert (event.count, event.sensitivity, event.noise_multiplier) == (1, 1.0, noise)
    assert after.epsilon() <= 2.0
    deviation = float(released.deviations["second"])
    assert deviation == pytest.approx(noise / Parts().weights()["second"], rel=1e-6)
    second = np.asarray(released.statistics.second)
    np.testing.assert_array_equal(second, second.T)
    beside = second[np.triu_indices(100, 1)] * np.sqrt(2) / deviation
    assert stats.kstest(beside, "norm").pvalue > 0.01
    by_class = released.statistics.pixel_second[:, *np.triu_indices(60, 1)]
    by_class = np.ravel(by_class) * np.sqrt(2) / released.deviations["pixel_second"]
    assert stats.kstest(by_class, "norm").pvalue > 0.01
    with pytest.raises(BudgetError):
        statistics.release(jax.random.key(0), summed, Parts(), noise, after)


def test_the_teacher_is_ridge_regression():
    (vectors, _), labels, summed = _statistics()
    quiet = {name: jnp.float32(0) for name in vars(summed)}
    weights = statistics.teacher(statistics.Released(summed, quiet))
    x, y = np.asarray(vectors, np.float64), np.eye(CLASSES)[labels]
    stacked = np.r_[x, np.eye(D)], np.r_[y, np.zeros((D, CLASSES))]  # of ridge 1
    np.testing.assert_allclose(weights, np.linalg.lstsq(*stacked)[0], atol=1e-4)


def test_a_weight_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match="counts"):
        Parts(counts=0.0)
