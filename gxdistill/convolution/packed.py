"""bfloat16 on a CPU: rounded, copied and moved as words of 32 bits, two values each.

A CPU may have instructions for products of bfloat16, and for nothing else of it: compiled for one,
XLA rounds and copies such values one by one, which costs more than the products save. Words it
rounds and copies as fast as float32. Only a product looks into them.
"""

import jax
import jax.numpy as jnp


def _rounded(x: jax.Array) -> jax.Array:
    """Returns the bits of float32 values, rounded to bfloat16: the upper 16, the others are 0."""
    x = jax.lax.optimization_barrier(x)  # What it is made of would be computed again with it.
    rounded = jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)
    rounded = jnp.where(jnp.isnan(x), jnp.nan, rounded)  # Of some, infinity would be made.
    return jax.lax.bitcast_convert_type(rounded, jnp.uint32)


def of_halves(x: jax.Array) -> jax.Array:
    """Rounds `[..., 2 n]` float32 to words `[..., n]`: value i with value n + i.

    Their values are then in the order of `interleaved`.
    """
    low, high = jnp.split(_rounded(x), 2, axis=-1)
    return (low >> 16) | high


def turned(x: jax.Array) -> jax.Array:
    """Rounds `[2 n, m]` float32 to words `[m, n]` whose `values` are the rounded transpose."""
    pairs = _rounded(x).reshape(-1, 2, x.shape[1])
    return jax.lax.optimization_barrier((pairs[:, 0] >> 16) | pairs[:, 1]).T


def values(words: jax.Array) -> jax.Array:
    """Reads words `[..., n]` as bfloat16 `[..., 2 n]`."""
    pairs = jax.lax.bitcast_convert_type(words, jnp.bfloat16)
    return pairs.reshape(*words.shape[:-1], -1)


def interleaved(x: jax.Array, axis: int) -> jax.Array:
    """Orders an axis as words `of_halves` have it: 0, n, 1, n + 1, ..."""
    low, high = jnp.split(x, 2, axis=axis)
    return jnp.stack([low, high], axis=axis + 1).reshape(x.shape)


def parted(x: jax.Array, axis: int) -> jax.Array:
    """Orders an axis back: of `interleaved`."""
    pairs = x.reshape(*x.shape[:axis], -1, 2, *x.shape[axis + 1 :])
    return pairs.swapaxes(axis, axis + 1).reshape(x.shape)
