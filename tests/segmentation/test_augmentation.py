import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from gxdistill.segmentation import augmentation

N, SIDE = 12, 9
KEY = jax.random.key(3)


@pytest.fixture
def drawn():
    rng = np.random.default_rng(0)
    return rng.random((N, SIDE, SIDE, 3), np.float32), rng.integers(0, 3, (N, SIDE, SIDE))


def _ways(array):
    turned = [np.rot90(array, k) for k in range(4)]
    return turned + [x.swapaxes(0, 1) for x in turned]


def test_square_images_are_mirrored_and_turned_with_their_labels(drawn):
    images, labels = map(np.asarray, augmentation.dihedral(*drawn, KEY))
    seen = set()
    for n in range(N):
        same = [i for i, way in enumerate(_ways(drawn[0][n])) if np.array_equal(way, images[n])]
        assert len(same) == 1
        np.testing.assert_array_equal(labels[n], _ways(drawn[1][n])[same[0]])
        seen.add(same[0])
    assert len(seen) > 3


def test_an_affine_map_reads_between_pixels_as_scipy_does():
    rng = np.random.default_rng(0)
    image, at = rng.random((7, 5, 2)), rng.uniform(-2, 8, (30, 2))
    read = augmentation._between(jnp.asarray(image, jnp.float32), jnp.asarray(at, jnp.float32))
    for channel in range(2):
        expected = ndimage.map_coordinates(image[..., channel], at.T, order=1, mode="nearest")
        np.testing.assert_allclose(read[:, channel], expected, atol=1e-5)


def test_labels_move_with_their_images():
    blob = np.zeros((SIDE * 4, SIDE * 4))
    blob[8:20, 10:30] = 1
    images = np.repeat(blob[None, ..., None], N, 0).astype(np.float32)
    labels = np.repeat(blob[None], N, 0).astype(int)
    moved, followed = map(np.asarray, augmentation.affine(images, labels, KEY))
    clear = np.abs(moved[..., 0] - 0.5) > 0.49  # Between, the nearest pixel may be either.
    np.testing.assert_array_equal((moved[..., 0] > 0.5)[clear], (followed == 1)[clear])
    areas = followed.sum((1, 2))
    assert np.ptp(areas) > 20  # It zooms,
    assert (np.abs(np.log(areas / blob.sum())) < 2 * 0.15 + 0.1).all()  # by so much at most.
    middles = np.array([ndimage.center_of_mass(label) for label in followed])
    assert np.ptp(middles, axis=0).min() > 1


def test_stains_are_scaled_and_shifted_each_by_itself(drawn):
    images, _ = drawn
    images = 0.2 + 0.6 * images  # Away from the ends, where the result is cut.
    changed, labels = augmentation.stain(images, drawn[1], KEY)
    np.testing.assert_array_equal(labels, drawn[1])
    vectors = augmentation.STAINS / np.linalg.norm(augmentation.STAINS, axis=1, keepdims=True)
    factors = []
    for before, after in zip(images, np.asarray(changed), strict=True):
        inside = ((after > 1e-4) & (after < 1 - 1e-4)).all(axis=-1)
        amounts = [np.linalg.solve(vectors.T, -np.log(x[inside]).T) for x in (before, after)]
        for old, new in zip(*amounts, strict=True):
            factor, shift = np.polyfit(old, new, 1)
            np.testing.assert_allclose(new, factor * old + shift, atol=1e-3)
            assert abs(factor - 1) < 0.051
            assert abs(shift) < 0.051
            factors.append(factor)
    assert np.std(factors) > 0.01


def test_grey_values_follow_a_rising_curve(drawn):
    changed, labels = augmentation.intensity(*drawn, KEY)
    np.testing.assert_array_equal(labels, drawn[1])
    for before, after in zip(drawn[0], np.asarray(changed), strict=True):
        assert after.min() >= 0
        assert after.max() <= 1
        rising = after.ravel()[np.argsort(before.ravel())]
        assert (np.diff(rising) >= -1e-6).all()
        assert np.abs(after - before).max() > 0.01


def test_ways_follow_each_other_each_with_its_key(drawn):
    both = augmentation.augment(("dihedral", "intensity"), *drawn, KEY)
    first = augmentation.dihedral(*drawn, jax.random.fold_in(KEY, 0))
    second = augmentation.intensity(*first, jax.random.fold_in(KEY, 1))
    jax.tree.map(np.testing.assert_array_equal, both, second)
    jax.tree.map(np.testing.assert_array_equal, augmentation.augment((), *drawn, KEY), drawn)


def test_what_does_not_fit_is_refused(drawn):
    images, labels = drawn
    with pytest.raises(ValueError, match="`augmentation` is 'blur'; it must be one of 'dihedral'"):
        augmentation.augment(("blur",), images, labels, KEY)
    with pytest.raises(ValueError, match="Images of 1 channels have no stain"):
        augmentation.stain(images[..., :1], labels, KEY)
    with pytest.raises(ValueError, match="Images of 9x8 pixels cannot be turned"):
        augmentation.dihedral(images[:, :, :8], labels[:, :, :8], KEY)
