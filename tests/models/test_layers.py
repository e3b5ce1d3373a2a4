import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gxdistill.convolution.pooling import average_pool, max_pool
from gxdistill.models.layers import Conv, Norm, dense


@pytest.mark.parametrize(
    ("kind", "channels", "groups"),
    [("instance", 6, 6), ("group", 64, 32), ("group", 34, 17)],
)
def test_norm_matches_a_loop_over_images_and_groups(kind, channels, groups):
    rng = np.random.default_rng(0)
    x = rng.normal(3.0, 2.0, size=(3, 4, 5, channels)).astype(np.float32)
    scale, bias = rng.normal(size=(2, channels))
    params = {"params": {"scale": scale.astype(np.float32), "bias": bias.astype(np.float32)}}

    expected = np.zeros(x.shape)
    size = channels // groups
    for n, g in itertools.product(range(3), range(groups)):
        part = x[n, :, :, g * size : (g + 1) * size].astype(np.float64)
        normal = (part - part.mean()) / np.sqrt(part.var() + 1e-5)
        expected[n, :, :, g * size : (g + 1) * size] = normal
    expected = expected * scale + bias
    actual = jax.jit(Norm(kind).apply)(params, x)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layer", [Conv(2, dtype=jnp.bfloat16), dense(2, jnp.bfloat16)])
def test_a_biass_gradient_is_added_up_in_float32(layer):
    x = jnp.ones((64, 16, 16, 1))
    params = layer.init(jax.random.key(0), x)

    def total(params):
        return layer.apply(params, x).astype(jnp.float32).sum()

    by_bias = jax.jit(jax.grad(total))(params)["params"]["bias"]
    np.testing.assert_array_equal(by_bias, [64 * 16 * 16] * 2)  # One for each output; exact.


def test_norm_keeps_bfloat16_and_takes_statistics_in_float32():
    # In bfloat16 the neighbours of 1000 are 996 and 1004: a mean taken in it would be off.
    x = jnp.asarray([996.0, 1000.0, 1004.0, 1008.0], jnp.bfloat16).reshape(1, 2, 2, 1)
    params = {"params": {"scale": jnp.ones(1), "bias": jnp.zeros(1)}}
    y = jax.jit(Norm("instance").apply)(params, x)
    assert y.dtype == jnp.bfloat16
    expected = np.array([-1.5, -0.5, 0.5, 1.5]) / np.sqrt(1.25)
    np.testing.assert_allclose(y.astype(np.float32).ravel(), expected, rtol=0.01)


def test_no_norm_has_no_parameters_and_changes_nothing():
    x = jnp.arange(4.0).reshape(1, 2, 2, 1)
    y, variables = Norm("none").init_with_output(jax.random.key(0), x)
    assert variables == {}
    np.testing.assert_array_equal(y, x)


@pytest.mark.parametrize(("pool", "reduce"), [(max_pool, np.max), (average_pool, np.mean)])
@pytest.mark.parametrize("size", [2, 3])
def test_pools_match_a_loop_and_drop_what_is_left_over(pool, reduce, size):
    x = np.random.default_rng(0).normal(size=(2, 7, 6, 3)).astype(np.float32)
    expected = np.zeros((2, 7 // size, 6 // size, 3))
    for n, i, j, c in itertools.product(*map(range, expected.shape)):
        block = x[n, i * size : (i + 1) * size, j * size : (j + 1) * size, c]
        expected[n, i, j, c] = reduce(block)
    np.testing.assert_allclose(
        jax.jit(pool, static_argnums=1)(x, size), expected, rtol=1e-6, atol=1e-7
    )


def test_equal_pixels_share_the_gradient_of_max_pool():
    x = jnp.asarray([[1.0, 3.0], [3.0, 3.0]]).reshape(1, 2, 2, 1)
    gradient = jax.grad(lambda x: max_pool(x).sum())(x)
    np.testing.assert_allclose(gradient.ravel(), [0, 1 / 3, 1 / 3, 1 / 3], rtol=1e-6)


def test_max_pool_is_differentiated_twice_and_forwards_as_slices_are():
    rng = np.random.default_rng(3)
    x, v, w = (jnp.asarray(rng.normal(size=(2, 5, 7, 3)), jnp.float32) for _ in range(3))

    def largest(x):
        x = x[:, :4, :6].reshape(2, 2, 2, 3, 2, 3)
        return x.max((2, 4))

    def curved(pool, x):
        return (pool(jnp.sin(x)) ** 3).sum()

    for pool in (max_pool, largest):
        slope = jax.jvp(lambda x, p=pool: curved(p, x), (x,), (v,))[1]
        twice = jax.jvp(jax.grad(lambda x, p=pool: curved(p, x)), (x,), (v,))[1]
        backwards = jax.grad(lambda x, p=pool: (jax.grad(lambda x: curved(p, x))(x) * w).sum())(x)
        if pool is max_pool:
            found = slope, twice, backwards
    for ours, theirs in zip(found, (slope, twice, backwards), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=1e-5)


def test_the_gradient_of_max_pool_goes_to_the_largest_pixels():
    x = np.random.default_rng(1).permutation(36).reshape(1, 6, 6, 1).astype(np.float32)
    gradient = jax.jit(jax.grad(lambda x: max_pool(x).sum()))(x)
    largest = np.zeros(x.shape)
    for i, j in itertools.product(range(3), repeat=2):
        block = x[0, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, 0]
        row, col = np.unravel_index(block.argmax(), (2, 2))
        largest[0, 2 * i + row, 2 * j + col, 0] = 1
    np.testing.assert_array_equal(gradient, largest)
