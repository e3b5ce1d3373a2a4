import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from gxdistill.convolution import narrow


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("pixels", [1, 2, 3, 6])
def test_pixels_computed_together_are_those_of_a_loop(stride, pixels):
    rng = np.random.default_rng(0)
    count, tall, wide, channels, features = 2, 3, 6, 3, 2
    high, broad, pads = 3, 2, ((1, 1), (0, 1))
    height, width = (tall - 1) * stride + high - 2, (wide - 1) * stride + broad - 1
    x = rng.normal(size=(count, height, width, channels)).astype(np.float32)
    k = rng.normal(size=(high, broad, channels, features)).astype(np.float32)
    padded = np.pad(x.astype(np.float64), ((0, 0), *pads, (0, 0)))
    expected = np.zeros((count, tall, wide, features))
    for i, j, r, c in itertools.product(*map(range, (high, broad, tall, wide))):
        expected[:, r, c] += padded[:, r * stride + i, c * stride + j] @ k[i, j]
    y = narrow.convolve(jnp.asarray(x), jnp.asarray(k), stride=stride, pads=pads, pixels=pixels)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("kernel", "width", "pixels"),
    [
        ((3, 3, 16, 16), 128, 2),  # 32 features fill a register,
        ((3, 3, 3, 16), 128, 4),  # of few channels 64.
        ((3, 3, 8, 8), 50, 2),  # 4 do not divide 50.
        ((3, 3, 8, 1), 128, 16),
        ((3, 3, 16, 32), 128, 1),
        ((3, 3, 32, 16), 128, 1),
        ((1, 1, 16, 2), 128, 1),
        ((3, 3, 3, 96), 128, 1),
    ],
)
def test_as_many_pixels_are_computed_together_as_fill_a_register(kernel, width, pixels):
    assert narrow.at_once(kernel, width) == pixels


def test_zeros_between_the_pixels_are_as_if_they_were_there():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 3, 4, 3)), jnp.float32)
    k = jnp.asarray(rng.normal(size=(3, 3, 3, 2)), jnp.float32)
    spread = jnp.zeros((2, 7, 10, 3)).at[:, ::3, ::3].set(x)
    pads = ((1, 1), (0, 2))
    found = narrow.convolve(x, k, stride=1, pads=pads, apart=3)
    expected = narrow.convolve(spread, k, stride=1, pads=pads, pixels=1)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
