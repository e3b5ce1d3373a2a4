"""Layers that the networks share, in Flax Linen.

No running statistics anywhere: they could not be differentiated through the unroll.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from gxdistill import _check
from gxdistill.convolution.conv import conv2d

NORMS = ("instance", "group", "none")
NORM_EPSILON = 1e-5  # Beside a variance of 0.

_LECUN = nn.initializers.lecun_normal()


def wide(x: jax.Array) -> jax.Array:
    """Returns `x` in the type in which much is added up: float32 at least."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


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
        y = conv2d(x, kernel, stride=self.stride, padding=self.padding, dtype=self.dtype)
        if not self.bias:
            return y
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        # Not in bfloat16, in which the bias's gradient, a sum over all pixels, would stand still.
        return (wide(y) + bias).astype(y.dtype)


def dense(
    features: int,
    dtype: jnp.dtype,
    kernel_init: Callable[..., jax.Array] = _LECUN,
) -> nn.Dense:
    """Makes a layer of products in `dtype`, whose sums and outputs are float32 at least."""
    summed = jnp.promote_types(dtype, jnp.float32)
    product = partial(jax.lax.dot_general, preferred_element_type=summed)
    return nn.Dense(features, dtype=dtype, kernel_init=kernel_init, dot_general=product)


class Weights(nn.Module):
    """Kernel and bias of a convolution that is computed together with what follows it.

    Attributes:
      features: number of output channels.
      size: side of the kernel.
      kernel_init: initialiser of the kernel.
    """

    features: int
    size: int
    kernel_init: Callable[..., jax.Array]

    @nn.compact
    def __call__(self, channels: int) -> tuple[jax.Array, jax.Array]:
        """Returns the kernel `[size, size, channels, features]` and the bias `[features]`."""
        shape = (self.size, self.size, channels, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        return kernel, self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)


class Norm(nn.Module):
    """Normalises each image by itself.

    Attributes:
      kind: "instance" (each channel by itself), "group" (32 groups, or as many as divide the
        channels) or "none".
    """

    kind: str = "group"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[N, H, W, C]` to the same shape; statistics are taken in float32 at least."""
        _check.one_of("norm", self.kind, NORMS)
        if self.kind == "none":
            return x
        channels = x.shape[-1]
        groups = channels if self.kind == "instance" else groups_of(channels)
        scale = self.param("scale", nn.initializers.ones, (channels,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
        y = wide(x)
        mean, square = y.mean((1, 2)), jnp.square(y).mean((1, 2))  # [N, C]
        if groups < channels:
            grouped = jnp.stack([mean, square]).reshape(2, len(x), groups, channels // groups)
            averaged = jnp.broadcast_to(grouped.mean(-1, keepdims=True), grouped.shape)
            mean, square = averaged.reshape(2, len(x), channels)
        # Half the passes over the pixels of E[(y - E[y])^2], and twice the speed with gradients.
        variance = jnp.maximum(square - jnp.square(mean), 0)
        factor = jax.lax.rsqrt(variance + NORM_EPSILON) * scale
        shift = bias - mean * factor
        return (y * factor[:, None, None] + shift[:, None, None]).astype(x.dtype)


def groups_of(channels: int) -> int:
    """Returns the number of groups of group normalisation: the most up to 32 that divide."""
    return next(g for g in range(min(32, channels), 0, -1) if channels % g == 0)
