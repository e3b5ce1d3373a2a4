import itertools

import jax
import numpy as np
import pytest

from gxdistill.privacy.attacks import reconstruction

# Compiled as a whole: operation by operation takes seconds.
IN_PIXELS, IN_STRUCTURE = map(jax.jit, (reconstruction.in_pixels, reconstruction.in_structure))
IN_FEATURES, FEATURES = map(jax.jit, (reconstruction.in_features, reconstruction.features))


def _images(seed, count, side=11):
    return np.random.default_rng(seed).normal(size=(count, side, side, 1)).astype(np.float32)


def _standardised(image):
    return (image - image.mean()) / image.std()


def test_pixels_are_compared_whatever_brightness_and_contrast():
    a, b = _images(0, 3), _images(1, 4)
    found = np.asarray(IN_PIXELS(a, b))
    for i, j in itertools.product(range(3), range(4)):
        apart = _standardised(a[i]) - _standardised(b[j])
        assert found[i, j] == pytest.approx(np.sqrt(np.mean(apart**2)), abs=1e-5)
    copies = np.asarray(IN_PIXELS(a, 3 * a + 5))
    assert (np.diag(copies) < 5e-3).all()


def test_structure_is_one_minus_ssim_by_a_loop_over_windows():
    a, b = _images(2, 2), _images(3, 2)
    b[1] = a[0] + 0.3 * b[1]
    found = np.asarray(IN_STRUCTURE(a, b))
    c1, c2 = 0.04**2, 0.12**2
    for i, j in itertools.product(range(2), range(2)):
        x, y = (_standardised(image.astype(float))[..., 0] for image in (a[i], b[j]))
        values = []
        for row, col in itertools.product(range(5), range(5)):
            u, v = (part[row : row + 7, col : col + 7].ravel() for part in (x, y))
            cross = np.mean((u - u.mean()) * (v - v.mean()))
            values.append(
                (2 * u.mean() * v.mean() + c1)
                * (2 * cross + c2)
                / ((u.mean() ** 2 + v.mean() ** 2 + c1) * (u.var() + v.var() + c2))
            )
        assert found[i, j] == pytest.approx(1 - np.mean(values), abs=1e-4)
    assert found[0, 1] < 0.5 < found[0, 0]


def test_features_forgive_a_small_shift_and_pixels_do_not():
    rng = np.random.default_rng(4)
    field = np.kron(rng.normal(size=(12, 12)), np.ones((4, 4)))[None, ..., None]
    here, moved = field[:, 4:36, 4:36], field[:, 5:37, 5:37]
    others = np.concatenate(
        [np.kron(rng.normal(size=(8, 8)), np.ones((4, 4)))[None, ..., None] for _ in range(5)]
    )
    near = {
        name: (float(of(here, moved)[0, 0]), float(of(here, others).min()))
        for name, of in (("pixels", IN_PIXELS), ("features", IN_FEATURES))
    }
    shifted, other = near["features"]
    assert shifted < 0.5 * other
    assert near["pixels"][0] / near["pixels"][1] > shifted / other


def test_features_see_neither_brightness_nor_contrast_and_have_length_one():
    images = _images(5, 3, 32)
    found = np.asarray(FEATURES(images))
    np.testing.assert_allclose(found, FEATURES(4 * images - 1), atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_a_copy_of_a_member_is_nearer_to_members():
    distances = np.array([[0.0, 0.9, 0.8, 0.7], [0.6, 0.9, 0.6, 0.7]])
    members = np.array([True, True, False, False])
    found = reconstruction.nearer_to_members(distances, members)
    np.testing.assert_allclose(found, [0.0, 1.0])
    with pytest.raises(ValueError, match="one is empty"):
        reconstruction.nearer_to_members(distances, np.ones(4, bool))


def test_flat_images_have_finite_distances():
    flat, other = np.zeros((1, 8, 8, 1), np.float32), _images(6, 2, 8)
    for of in (IN_PIXELS, IN_STRUCTURE, IN_FEATURES):
        assert np.isfinite(np.asarray(of(flat, other))).all()
