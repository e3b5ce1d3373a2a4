"""SSIM and MS-SSIM, against pytorch-msssim's values and against SciPy."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from gxdistill.evaluation import similarity


def _pair(height, width):
    y, x = np.mgrid[:height, :width]
    a = 0.5 + 0.25 * np.sin(x / 7) * np.cos(y / 5) + 0.1 * np.sin(x * y / 97)
    b = 0.8 * a + 0.1 + 0.1 * np.cos((x + 2 * y) / 3)
    return a.astype(np.float32)[None], b.astype(np.float32)[None]


def test_values_are_those_of_pytorch_msssim():
    """Of version 1.0.0, by `ssim` and `ms_ssim` with `data_range=1.0`."""
    assert similarity.ssim(*_pair(192, 176))[0] == pytest.approx(0.7043532, abs=2e-5)
    assert similarity.ms_ssim(*_pair(192, 176))[0] == pytest.approx(0.8665860, abs=5e-5)
    assert similarity.ssim(*_pair(64, 48))[0] == pytest.approx(0.5233265, abs=2e-5)


def _by_scipy(a, b, weights):
    """Of one pair of images, by Gaussian filters of which the borders are cut off."""
    total = 1.0
    for scale, weight in enumerate(weights):
        mean_a, mean_b, aa, bb, ab = (
            ndimage.gaussian_filter(x.astype(float), 1.5, radius=5)[5:-5, 5:-5]
            for x in (a, b, a * a, b * b, a * b)
        )
        aa, bb, ab = aa - mean_a**2, bb - mean_b**2, ab - mean_a * mean_b
        factor = (2 * ab + 9e-4) / (aa + bb + 9e-4)
        if scale == len(weights) - 1:
            factor = factor * (2 * mean_a * mean_b + 1e-4) / (mean_a**2 + mean_b**2 + 1e-4)
        total *= max(factor.mean(), 0) ** (weight / sum(weights))
        rows, columns = (side // 2 * 2 for side in a.shape)
        a, b = (
            (x[:rows:2, :columns:2] + x[1:rows:2, :columns:2]) / 4
            + (x[:rows:2, 1:columns:2] + x[1:rows:2, 1:columns:2]) / 4
            for x in (a, b)
        )
    return total


@pytest.mark.parametrize(("shape", "scales"), [((60, 49), 3), ((30, 25), 2), ((11, 12), 1)])
def test_smaller_images_have_the_finest_scales_that_hold_a_window(shape, scales):
    a, b = _pair(*shape)
    expected = _by_scipy(a[0], b[0], (0.0448, 0.2856, 0.3001)[:scales])
    assert similarity.scales_of(shape) == scales
    assert similarity.ms_ssim(a, b)[0] == pytest.approx(expected, abs=2e-5)


def test_equal_images_are_1_and_the_opposite_is_0_not_a_root_of_a_negative():
    a = _pair(40, 40)[0]
    np.testing.assert_allclose(similarity.ms_ssim(a, a), 1, atol=1e-5)
    assert similarity.ms_ssim(a, 1 - a)[0] == 0
    with pytest.raises(ValueError, match="10x40 pixels hold no window"):
        similarity.ms_ssim(jnp.ones((1, 10, 40)), jnp.ones((1, 10, 40)))


def test_the_size_of_a_change_is_found_by_the_similarity_that_it_leaves():
    a, b = _pair(30, 30)
    aim = float(similarity.ssim(a + 0.3 * (b - a), a)[0])
    size = similarity.size_of_similarity(lambda t: a + t * (b - a), a, aim, 1.0)
    assert size == pytest.approx(0.3, abs=2e-3)
    assert similarity.size_of_similarity(lambda t: a + t * (b - a), a, -1, 1.0) == 1
