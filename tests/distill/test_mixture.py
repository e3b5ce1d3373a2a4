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
    images = np.concatenate(clusters)
    return images, np.zeros(len(images), np.int32)


def test_draws_have_the_mean_and_the_covariance_of_one_cluster():
    images, labels = _pool(_cluster(np.random.default_rng(0), 120, 5.0))
    count = 40000
    drawn = mixture.drawn(images, labels, np.zeros(count, int), jax.random.key(0))
    assert (drawn.shape, drawn.dtype) == ((count, *SHAPE), np.float32)
    real, found = images.reshape(-1, 4), drawn.reshape(-1, 4)
    covariance = np.cov(real.T, bias=True)
    deviation = np.sqrt(np.diag(covariance) / count)
    assert (np.abs(found.mean(axis=0) - real.mean(axis=0)) < 5 * deviation).all()
    variances = np.diag(covariance)
    # Of a Gaussian's sample covariance: (s_ii s_jj + s_ij^2) / n.
    error = np.sqrt((np.outer(variances, variances) + covariance**2) / count)
    assert (np.abs(np.cov(found.T) - covariance) < 5 * error).all()


def test_clusters_far_apart_are_drawn_from_as_often_as_they_are_large():
    rng = np.random.default_rng(1)
    images, labels = _pool(_cluster(rng, 300, 0.0), _cluster(rng, 100, 1000.0))
    drawn = mixture.drawn(images, labels, np.zeros((100, 40), int), jax.random.key(0))
    means = drawn.mean(axis=(2, 3, 4))
    near, far = np.abs(means) < 20, np.abs(means - 1000) < 20
    assert (near | far).all()  # and nothing between them
    assert abs(far.mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / far.size)


def test_few_patches_have_no_cluster_of_their_own():
    """Beside 300 patches, 10 that lie far away would each be told by what is drawn near them."""
    rng = np.random.default_rng(2)
    images, labels = _pool(_cluster(rng, 300, 0.0), _cluster(rng, 10, 1000.0))
    drawn = mixture.drawn(images, labels, np.zeros(2000, int), jax.random.key(0))
    few = images[300:].reshape(10, -1)
    distances = np.linalg.norm(drawn.reshape(-1, 1, 4) - few, axis=-1)
    spread = np.linalg.norm(few[:, None] - few, axis=-1).max()
    assert distances.min() > spread


def test_each_image_is_of_its_class():
    rng = np.random.default_rng(3)
    images = np.concatenate([_cluster(rng, 60, 100.0 * label) for label in range(3)])
    classes = np.array([[2, 0, 1], [1, 1, 2]])
    drawn = mixture.drawn(images, np.repeat([0, 1, 2], 60), classes, jax.random.key(0))
    np.testing.assert_array_equal(np.rint(drawn.mean(axis=(2, 3, 4)) / 100), classes)


def test_a_key_gives_its_images_again_and_another_key_others():
    images, labels = _pool(_cluster(np.random.default_rng(4), 250, 0.0))
    one, same, other = (
        mixture.drawn(images, labels, np.zeros(6, int), jax.random.key(seed)) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert not np.isin(other, one).any()
    assert not np.isin(one, images).any()


def test_a_class_of_too_few_patches_is_refused():
    images, labels = _pool(_cluster(np.random.default_rng(5), 49, 0.0))
    with pytest.raises(ValueError, match="Class 0 has 49 patches; a mixture is fitted to 50"):
        mixture.drawn(images, labels, np.zeros(1, int), jax.random.key(0))
