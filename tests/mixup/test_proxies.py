"""Noise and deformations, by statistics and against SciPy."""

import jax
import numpy as np
from scipy import ndimage

from gxdistill.mixup import proxies


def test_noise_has_the_deviation_that_was_asked_for():
    images = np.random.default_rng(0).random((4, 100, 100)).astype(np.float32)
    noise = np.asarray(proxies.add_noise(jax.random.key(0), images, 0.3)) - images
    assert abs(noise.std() - 0.3) < 0.3 * 3 / np.sqrt(2 * noise.size)
    assert abs(noise.mean()) < 0.3 * 3 / np.sqrt(noise.size)


def test_fields_have_the_size_that_was_asked_for_and_vanish_at_the_borders():
    field = np.asarray(proxies.draw_field(jax.random.key(0), 4000, (30, 20), 0.05))
    for axis, side in enumerate((30, 20)):
        np.testing.assert_allclose(np.sqrt((field[:, axis] ** 2).mean()), 0.05 * side, rtol=0.03)
    middle, border = (np.abs(x).mean() for x in (field[:, :, 15], field[:, :, 0]))
    assert border < 0.2 * middle


def test_warping_is_scipys_and_its_inverse_undoes_it():
    y, x = np.mgrid[:40, :32]
    images = (np.sin(y / 6) * np.cos(x / 5))[None].astype(np.float32)
    field = np.asarray(proxies.draw_field(jax.random.key(1), 1, (40, 32), 0.03))
    warped = np.asarray(proxies.warp(images, field))
    grid = np.stack([y, x]) + field[0]
    expected = ndimage.map_coordinates(images[0], grid, order=1, mode="nearest")
    np.testing.assert_allclose(warped[0], expected, atol=1e-5)
    assert np.abs(warped - images).mean() > 0.05
    back = np.asarray(proxies.warp(warped, proxies.inverse(field)))
    assert np.abs(back - images)[:, 4:-4, 4:-4].max() < 0.03
    labels = (images > 0).astype(np.int32)
    assert set(np.unique(proxies.warp(labels, field, order=0))) == {0, 1}
