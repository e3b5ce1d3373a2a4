"""Layers that the networks share, in Flax Linen.

No running statistics anywhere: they could not be differentiated through the unroll.
"""

import functools
import itertools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from gxdistill import _check
from gxdistill.models.conv import conv2d

NORMS = ("instance", "group", "none")


class Conv(nn.Module):
    """A convolution computed by `models.conv`.

    Attributes:
      features: number of output channels.
      size: side of the kernel.
      stride: step in pixels.
      padding: "SAME" or "VALID".
      bias: adds a bias per channel.
      kernel_init: initialiser of the kernel `[size, size, Ci, features]`.
      dtype: in which the products are computed; parameters stay float32.
    """

    features: int
    size: int = 3
    stride: int = 1
    padding: str = "SAME"
    bias: bool = True
    kernel_init: Callable[..., jax.Array] = nn.initializers.he_normal()
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[N, H, W, Ci]` to `[N, H', W', features]`."""
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        y = conv2d(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            stride=self.stride,
            padding=self.padding,
        )
        if not self.bias:
            return y
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        return y + bias.astype(self.dtype)


class Norm(nn.Module):
    """Normalises each image by itself.

    Attributes:
      kind: "instance" (each channel by itself), "group" (32 groups, or as many as divide the
        channels) or "none".
      scale_init: initialiser of the learned scale per channel.
    """

    kind: str = "group"
    scale_init: Callable[..., jax.Array] = nn.initializers.ones

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[N, H, W, C]` to the same shape; statistics are taken in float32."""
        _check.one_of("norm", self.kind, NORMS)
        if self.kind == "none":
            return x
        channels = x.shape[-1]
        groups = channels if self.kind == "instance" else _groups(channels)
        scale = self.param("scale", self.scale_init, (channels,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
        y = x.astype(jnp.float32)
        mean, square = y.mean((1, 2)), jnp.square(y).mean((1, 2))  # [N, C]
        if groups < channels:
            grouped = jnp.stack([mean, square]).reshape(2, len(x), groups, channels // groups)
            averaged = jnp.broadcast_to(grouped.mean(-1, keepdims=True), grouped.shape)
            mean, square = averaged.reshape(2, len(x), channels)
        # Half the passes over the pixels of E[(y - E[y])^2], and twice the speed with gradients.
        variance = jnp.maximum(square - jnp.square(mean), 0)
        factor = jax.lax.rsqrt(variance + 1e-5) * scale
        shift = bias - mean * factor
        return (y * factor[:, None, None] + shift[:, None, None]).astype(x.dtype)


def _groups(channels: int) -> int:
    return next(g for g in range(min(32, channels), 0, -1) if channels % g == 0)


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
    return sum(parts[1:], parts[0]) / size**2


def _blocks(x: jax.Array, size: int) -> jax.Array:
    count, height, width, channels = x.shape
    tall, wide = height // size, width // size
    x = x[:, : tall * size, : wide * size]
    return x.reshape(count, tall, size, wide, size, channels)
