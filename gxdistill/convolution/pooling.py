"""Pooling over square blocks, by slices: on a CPU cheaper to differentiate than windows."""

import functools
import itertools

import jax
import jax.numpy as jnp

from gxdistill.runtime import platform


def kept(x: jax.Array) -> jax.Array:
    """Returns `x`, computed once for all that reads it.

    On a CPU, XLA would otherwise compute it again for each copy of it that a convolution gathers,
    element by element. It takes `compiler_options` of `models.conv` for this to hold.
    """
    return jax.lax.optimization_barrier(x) if platform.platform() == "cpu" else x


def max_pool(x: jax.Array, size: int = 2) -> jax.Array:
    """Takes the maximum of each `size` x `size` block: `[N, H, W, C] -> [N, H//s, W//s, C]`.

    By slices and `jnp.maximum`: on a CPU its gradient is several times cheaper than that of
    `lax.reduce_window`.
    """
    blocks = _blocks(x, size)
    places = itertools.product(range(size), repeat=2)
    return functools.reduce(jnp.maximum, [blocks[:, :, i, :, j] for i, j in places])


def average_pool(x: jax.Array, size: int = 2) -> jax.Array:
    """Takes the mean of each `size` x `size` block: `[N, H, W, C] -> [N, H//s, W//s, C]`."""
    blocks = _blocks(x, size)
    parts = [blocks[:, :, i, :, j] for i in range(size) for j in range(size)]
    return kept(sum(parts[1:], parts[0]) / size**2)


def _blocks(x: jax.Array, size: int) -> jax.Array:
    count, height, width, channels = x.shape
    tall, wide = height // size, width // size
    x = x[:, : tall * size, : wide * size]
    return x.reshape(count, tall, size, wide, size, channels)
