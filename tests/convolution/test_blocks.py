import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from gxdistill.convolution import blocks


@pytest.mark.parametrize(("stride", "rows"), [(1, 2), (1, 6), (2, 1), (2, 3)])
@pytest.mark.parametrize(("channels", "features"), [(3, 2), (2, 5), (40, 33)])
def test_correlation_is_that_of_a_loop_over_taps(stride, rows, channels, features):
    rng = np.random.default_rng(0)
    count, tall, wide = 2, 6, 4
    high, broad, pads = 3, 2, ((1, 1), (0, 1))
    height, width = (tall - 1) * stride + high - 2, (wide - 1) * stride + broad - 1
    x = rng.normal(size=(count, height, width, channels)).astype(np.float32)
    y = rng.normal(size=(count, tall, wide, features)).astype(np.float32)
    padded = np.pad(x.astype(np.float64), ((0, 0), *pads, (0, 0)))
    expected = np.zeros((high, broad, channels, features))
    for i, j, r, c in itertools.product(*map(range, (high, broad, tall, wide))):
        seen = padded[:, r * stride + i, c * stride + j]  # [count, channels]
        expected[i, j] += seen.T @ y[:, r, c]
    kernel = blocks.correlate(
        jnp.asarray(x), jnp.asarray(y), (high, broad), stride=stride, pads=pads, rows=rows
    )
    np.testing.assert_allclose(kernel, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("outputs", "gathered", "rows"),
    [
        ((128, 128), 9 * 16, 8),  # 14 rows would fit; 8 divides.
        ((6, 16), 9, 6),
        ((127, 8), 9 * 512, 0),  # 7 rows would fit; one alone is of too few pixels.
        ((4, 8), 9, 0),
    ],
)
def test_a_block_fits_into_the_cache_and_divides_the_image(outputs, gathered, rows):
    assert blocks.rows_at_once(outputs, gathered) == rows


def test_few_channels_are_correlated_block_by_block_of_rows_that_do_not_divide_the_image():
    rng = np.random.default_rng(1)
    tall, wide, pads = 37, 512, ((1, 1), (1, 1))
    x, y = (rng.normal(size=(2, tall, wide, n)).astype(np.float32) for n in (24, 16))
    padded = np.pad(x.astype(np.float64), ((0, 0), *pads, (0, 0)))
    kernel = blocks.correlate(jnp.asarray(x), jnp.asarray(y), (3, 3), stride=1, pads=pads, rows=1)
    for i, j in itertools.product(range(3), repeat=2):
        expected = np.einsum("nrcx,nrcy->xy", padded[:, i : i + tall, j : j + wide], y)
        np.testing.assert_allclose(kernel[i, j], expected, rtol=1e-4, atol=2e-3)
