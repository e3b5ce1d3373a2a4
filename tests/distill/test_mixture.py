import jax
import numpy as np
import pytest

from gxdistill.distill import mixture

SHAPE = (2, 2, 1)


def _cluster(rng, count, centre):
    """Images of correlated pixels around a centre."""
    mixing = np.random.default_rng(9).normal(size=(4, 4))
    return (centre + rng.normal(size=(count, 4)) @ mixing).astype(np.float32).reshape(-1, *SHAPE)


def _pool(*clusters):
    """Images of one class, each of another patient."""
    images = np.concatenate(clusters)
    return images, np.zeros(len(images), np.int32), np.arange(len(images))


@pytest.mark.parametrize(("number", "count"), [(300, 7), (5, 9)])
def test_centres_are_those_of_lloyds_algorithm(number, count):
    """From the same start; of 9 centres among 5 images some are nearest to none and stay."""
    images = _cluster(np.random.default_rng(6), number, 0.0)
    key = jax.random.key(3)
    flat = images.reshape(number, -1).astype(np.float64)
    expected = mixture.some(images, count, key).reshape(count, -1).astype(np.float64)
    for _ in range(20):
        near = [int(np.argmin([np.sum((row - c) ** 2) for c in expected])) for row in flat]
        members = [flat[np.array(near) == i] for i in range(count)]
        expected = np.stack(
            [m.mean(axis=0) if len(m) else c for m, c in zip(members, expected, strict=True)]
        )
    centres = mixture.centres(images, count, key)
    assert (centres.shape, centres.dtype) == ((count, *SHAPE), np.float32)
    np.testing.assert_allclose(centres.reshape(count, -1), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(centres, mixture.centres(images, count, key))


def test_draws_have_the_mean_and_the_covariance_of_one_cluster():
    images, *of = _pool(_cluster(np.random.default_rng(0), 120, 5.0))
    count = 40000
    drawn = mixture.drawn(images, *of, np.zeros(count, int), jax.random.key(0))
    assert (drawn.shape, drawn.dtype) == ((count, *SHAPE), np.float32)
    real, draws = images.reshape(-1, 4), drawn.reshape(-1, 4)
    covariance = np.cov(real.T, bias=True)
    deviation = np.sqrt(np.diag(covariance) / count)
    assert (np.abs(draws.mean(axis=0) - real.mean(axis=0)) < 5 * deviation).all()
    variances = np.diag(covariance)
    # Of a Gaussian's sample covariance: (s_ii s_jj + s_ij^2) / n.
    error = np.sqrt((np.outer(variances, variances) + covariance**2) / count)
    assert (np.abs(np.cov(draws.T) - covariance) < 5 * error).all()


def test_clusters_far_apart_are_drawn_from_as_often_as_they_are_large():
    rng = np.random.default_rng(1)
    images, *of = _pool(_cluster(rng, 300, 0.0), _cluster(rng, 100, 1000.0))
    drawn = mixture.drawn(images, *of, np.zeros((100, 40), int), jax.random.key(0))
    means = drawn.mean(axis=(2, 3, 4))
    near, far = np.abs(means) < 20, np.abs(means - 1000) < 20
    assert (near | far).all()  # and nothing between them
    assert abs(far.mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / far.size)


def test_smaller_clusters_draw_images_nearer_to_real_ones():
    """Of images on a circle, the Gaussians of arcs lie about it; that of all of them fills it."""
    angles = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    points = np.stack([np.cos(angles), np.sin(angles), 0 * angles, 0 * angles], axis=1)
    images, *of = _pool(points.astype(np.float32).reshape(-1, *SHAPE))

    def away(cluster):
        classes, key = np.zeros(4000, int), jax.random.key(0)
        drawn = mixture.drawn(images, *of, classes, key, cluster=cluster)
        return np.abs(np.linalg.norm(drawn.reshape(-1, 4), axis=1) - 1).mean()

    assert away(400) > 3 * away(100) > 9 * away(50) > 0
    # No arc may be of fewer than 20 patients: they are one cluster again.
    assert away(10) == away(400)


def test_few_patients_have_no_cluster_of_their_own():
    """Beside 300 patients, 10 whose many patches lie far away would be told by what is drawn there.

    Unlike their patches, what is drawn of all clusters together lies between them.
    """
    rng = np.random.default_rng(2)
    images, labels, patients = _pool(_cluster(rng, 300, 0.0), _cluster(rng, 100, 1000.0))
    patients[300:] = 300 + np.arange(100) % 10
    drawn = mixture.drawn(images, labels, patients, np.zeros(2000, int), jax.random.key(0))
    few = images[300:].reshape(100, -1)
    distances = np.linalg.norm(drawn.reshape(-1, 1, 4) - few, axis=-1)
    spread = np.linalg.norm(few[:, None] - few, axis=-1).max()
    assert np.mean(distances.min(axis=1) < spread) < 0.1


def test_each_image_is_of_its_class():
    rng = np.random.default_rng(3)
    images = np.concatenate([_cluster(rng, 60, 100.0 * label) for label in range(3)])
    classes = np.array([[2, 0, 1], [1, 1, 2]])
    labels, patients = np.repeat([0, 1, 2], 60), np.arange(180)
    drawn = mixture.drawn(images, labels, patients, classes, jax.random.key(0))
    np.testing.assert_array_equal(np.rint(drawn.mean(axis=(2, 3, 4)) / 100), classes)


def test_a_key_gives_its_images_again_and_another_key_others():
    images, *of = _pool(_cluster(np.random.default_rng(4), 250, 0.0))
    one, same, other = (
        mixture.drawn(images, *of, np.zeros(6, int), jax.random.key(seed)) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert not np.isin(other, one).any()
    assert not np.isin(one, images).any()


def test_a_class_of_too_few_patients_is_refused():
    images, labels, _ = _pool(_cluster(np.random.default_rng(5), 190, 0.0))
    with pytest.raises(ValueError, match="Class 0 has patches of 19 patients; a mixture of fewer"):
        mixture.drawn(images, labels, np.arange(190) % 19, np.zeros(1, int), jax.random.key(0))
