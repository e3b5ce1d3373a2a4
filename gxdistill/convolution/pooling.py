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
    `lax.reduce_window`. A gradient is shared out among the pixels of a block that are the largest.
    """
    return _pooled(kept(x), size) if platform.platform() == "cpu" else _largest(x, size)


def _largest(x: jax.Array, size: int) -> jax.Array:
    return functools.reduce(jnp.maximum, _places(_blocks(x, size)))


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _pooled(x: jax.Array, size: int) -> jax.Array:
    """Is `_largest`, whose gradient is laid out in one pass over the pixels, not one for each."""
    return _largest(x, size)


@_pooled.defjvp
def _pooled_tangent(
    size: int, primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (x,), (moved,) = primals, tangents
    y = kept(_pooled(x, size))
    blocks, moves = _blocks(x, size), _blocks(moved, size)
    count = sum((block == y).astype(x.dtype) for block in _places(blocks))
    taken = jnp.where(blocks == y[:, :, None, :, None], moves, 0)
    return y, taken.sum((2, 4)) / count


def average_pool(x: jax.Array, size: int = 2) -> jax.Array:
    """Takes the mean of each `size` x `size` block: `[N, H, W, C] -> [N, H//s, W//s, C]`."""
    parts = _places(_blocks(x, size))
    return kept(sum(parts[1:], parts[0]) / size**2)


def _blocks(x: jax.Array, size: int) -> jax.Array:
    count, height, width, channels = x.shape
    tall, wide = height // size, width // size
    x = x[:, : tall * size, : wide * size]
    return x.reshape(count, tall, size, wide, size, channels)


def _places(blocks: jax.Array) -> list[jax.Array]:
    """Takes the blocks' pixels apart, those at one place of every block together."""
    places = itertools.product(range(blocks.shape[2]), repeat=2)
    return [blocks[:, :, i, :, j] for i, j in places]
