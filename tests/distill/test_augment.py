import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.stats

from gxdistill.distill import augment as augment_module
from gxdistill.distill.augment import AUGMENTATIONS, augment

IMAGES = np.asarray(jax.random.normal(jax.random.key(0), (2, 3, 9, 9, 2)))
KEYS = list(jax.random.split(jax.random.key(1), 40))


def _symmetries():
    """The eight ways to lay a square down."""
    turned = [np.rot90(IMAGES, n, axes=(2, 3)) for n in range(4)]
    return turned + [image[:, :, :, ::-1] for image in turned]


@pytest.mark.parametrize(
    ("names", "places"),
    [(("flip",), (0, 4)), (("turn",), (0, 1, 2, 3)), (("flip", "turn"), range(8))],
)
def test_flips_and_turns_are_the_symmetries_of_a_square(names, places):
    seen = set()
    for key in KEYS:
        changed = np.asarray(augment(IMAGES, key, names))
        (match,) = [i for i, s in enumerate(_symmetries()) if np.allclose(changed, s, atol=1e-5)]
        seen.add(match)
    assert seen == set(places)


@pytest.mark.parametrize("name", ["rotate", "shift", "scale"])
def test_geometry_is_that_of_scipy(name):
    for key in KEYS[:3]:
        branch_key = jax.random.fold_in(key, AUGMENTATIONS.index(name))
        matrix, offset = map(np.asarray, augment_module._AFFINE[name](branch_key))
        centre = np.array([4.0, 4.0])
        expected = scipy.ndimage.affine_transform(
            IMAGES[1, 2, :, :, 1],
            matrix,
            centre - matrix @ centre + 9 * offset,
            order=1,
            mode="nearest",
        )
        changed = augment(IMAGES, key, (name,))
        np.testing.assert_allclose(changed[1, 2, :, :, 1], expected, atol=1e-4)


def test_brightness_and_contrast_keep_what_they_should():
    for key in KEYS[:5]:
        lighter = np.asarray(augment(IMAGES, key, ("brightness",)))
        assert np.ptp(lighter - IMAGES) < 1e-5
        assert abs((lighter - IMAGES).mean()) <= 0.5
        flatter = np.asarray(augment(IMAGES, key, ("contrast",)))
        np.testing.assert_allclose(flatter.mean((2, 3, 4)), IMAGES.mean((2, 3, 4)), atol=1e-5)
        ratios = flatter.std((2, 3, 4)) / IMAGES.std((2, 3, 4))
        assert ratios.min() >= 0.5
        assert np.ptp(ratios) < 1e-5


def test_gamma_bends_greys_by_one_power_between_darkest_and_brightest():
    low, high = (f(IMAGES, axis=(2, 3, 4), keepdims=True) for f in (np.min, np.max))
    shares = (IMAGES - low) / (high - low)
    inside = (shares > 0.01) & (shares < 0.99)
    powers = []
    for key in KEYS:
        bent = (np.asarray(augment(IMAGES, key, ("gamma",))) - low) / (high - low)
        assert bent.min() > -1e-5
        assert bent.max() < 1 + 1e-5
        each = np.log(bent[inside]) / np.log(shares[inside])
        assert np.ptp(each) < 1e-2
        powers.append(each.mean())
    assert 2 / 3 < min(powers) < 0.75
    assert 1.3 < max(powers) < 1.5


def test_noise_is_gaussian_and_the_same_for_all_images():
    grains = []
    for key in KEYS:
        added = np.asarray(augment(IMAGES, key, ("noise",))) - IMAGES
        assert np.ptp(added, axis=(0, 1)).max() < 1e-5
        assert added.std() < 0.2 * 1.2
        grains.append(added[0, 0].ravel() / added[0, 0].std())
    assert scipy.stats.kstest(np.concatenate(grains), "norm").pvalue > 0.01


def test_blur_goes_some_way_to_the_binomial_mean():
    kernel = np.array([1, 2, 1]) / 4
    mean = IMAGES
    for axis in (2, 3):
        mean = scipy.ndimage.correlate1d(mean, kernel, axis=axis, mode="nearest")
    for key in KEYS[:5]:
        change = np.asarray(augment(IMAGES, key, ("blur",))) - IMAGES
        (share,), *_ = np.linalg.lstsq((mean - IMAGES).reshape(-1, 1), change.ravel())
        assert 0 <= share <= 1
        np.testing.assert_allclose(change, share * (mean - IMAGES), atol=1e-5)


def test_one_key_is_one_draw_for_any_images():
    """Siamese: a real and a distilled batch that share images share them afterwards."""
    for key in KEYS[:3]:
        together = augment(IMAGES, key, AUGMENTATIONS)
        alone = augment(IMAGES[1, 1:], key, AUGMENTATIONS)
        np.testing.assert_allclose(together[1, 1:], alone, atol=1e-5)
    draws = [np.asarray(augment(IMAGES[0], key, AUGMENTATIONS)) for key in KEYS[:5]]
    assert len({draw.tobytes() for draw in draws}) == 5


def test_gradients_reach_the_pixels():
    slope = jax.grad(lambda x: jnp.sum(augment(x, KEYS[0], AUGMENTATIONS) ** 2))(IMAGES[0])
    assert np.isfinite(slope).all()
    assert (slope != 0).mean() > 0.5


def test_no_names_change_nothing_and_unknown_ones_are_refused():
    np.testing.assert_array_equal(augment(IMAGES, KEYS[0], ()), IMAGES)
    with pytest.raises(ValueError, match="`augmentation` is 'melt'"):
        augment(IMAGES, KEYS[0], ("melt",))
