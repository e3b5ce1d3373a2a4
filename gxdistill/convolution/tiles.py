"""Convolution, max pooling and ReLU over tiles: small images with few channels on a CPU.

Images are cut into square tiles, and a batch is kept as `[side * side * C, positions]`: a row is
one pixel of the tile and one channel, a column one tile of one image, the images innermost. A
convolution is then one matrix product: of the kernel spread over a neighbourhood of tiles with that
neighbourhood of each tile. So are its gradients and Hessian-vector products: large products, near a
CPU's peak also where an image has one channel. Copies and pooling pass over long contiguous runs,
and the 2 x 2 pixels that pooling compares are four blocks of rows. What pooling leaves of a tile is
a tile of half the side: the input of the next layer as it stands.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from gxdistill.convolution.pooling import kept

Layer = tuple[jax.Array, jax.Array]  # kernel [k, k, Ci, Co] and bias [Co]
_Grid = tuple[int, int, int]  # tiles from top to bottom, from left to right, and images


def conv_pool_relu(x: jax.Array, layers: Sequence[Layer], before: int) -> jax.Array:
    """Convolves, takes the maximum of 2 x 2 pixels, adds the bias and rectifies, layer by layer.

    Args:
      x: `[N, H, W, C]`, in the type of the products; they are summed in float32 at least.
      layers: kernels and biases.
      before: rows and columns of zeros around the images; later layers have none.

    Returns:
      `[N, h, w, Co]`, float32 at least.
    """
    side, summed = 2 ** len(layers), jnp.promote_types(x.dtype, jnp.float32)
    reaches = [_reach(side >> i, len(kernel)) for i, (kernel, _) in enumerate(layers)]
    tall, wide = (_tiles(size + 2 * before, layers) + sum(reaches) for size in x.shape[1:3])
    rows, grid = _cut(x, side, before, (tall, wide))
    for (kernel, bias), reach in zip(layers, reaches, strict=True):
        near, grid = _neighbours(rows.astype(x.dtype), grid, reach)
        spread = _spread(kernel, side, reach).astype(x.dtype)
        product = jnp.dot(spread, near, preferred_element_type=summed)
        a, b, c, d = jnp.split(product, 4)
        side //= 2
        pooled = _larger(_larger(a, b), _larger(c, d))
        rows = kept(jax.nn.relu(pooled + jnp.tile(bias, side * side)[:, None]))
    return rows.reshape(-1, *grid).transpose(3, 1, 2, 0)


def _reach(side: int, taps: int) -> int:
    """Neighbours, beside itself, that the kernel sees from a tile along an axis."""
    return math.ceil((taps - 1) / side)


def _tiles(size: int, layers: Sequence[Layer]) -> int:
    """Tiles along an axis of so many pixels: one for each pixel of the last layer's output."""
    for kernel, _ in layers:
        size = (size - len(kernel) + 1) // 2
    return size


def _larger(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.where(a >= b, a, b)  # Its derivative is a choice; that of `maximum` halves ties.


def _cut(x: jax.Array, side: int, before: int, tiles: tuple[int, int]) -> tuple[jax.Array, _Grid]:
    """Pads or crops images `[N, H, W, C]` to whole tiles, and moves the images innermost."""
    (count, *size, channels), (tall, wide) = x.shape, tiles
    pads = [(before, side * n - before - pixels, 0) for n, pixels in zip(tiles, size, strict=True)]
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *pads, (0, 0, 0)))
    x = kept(x.reshape(count, -1)).T.reshape(tall, side, wide, side, channels, count)
    rows = x.transpose(1, 3, 4, 0, 2, 5).reshape(side * side * channels, -1)
    return kept(rows), (tall, wide, count)


def _neighbours(rows: jax.Array, grid: _Grid, reach: int) -> tuple[jax.Array, _Grid]:
    """Stacks each tile's neighbours to the right and below: `[R, p] -> [(reach + 1)^2 R, p']`."""
    tall, wide, count = grid
    down, right = tall - reach, wide - reach
    # First along, then across: the second time whole rows of tiles are contiguous.
    x, run = rows.reshape(-1, wide * count), right * count
    x = jnp.stack([x[:, i * count : i * count + run] for i in range(reach + 1)])
    x, run = kept(x.reshape(-1, tall * run)), down * run
    step = right * count
    x = jnp.stack([x[:, i * step : i * step + run] for i in range(reach + 1)])
    return kept(x.reshape(-1, run)), (down, right, count)


def _spread(kernel: jax.Array, side: int, reach: int) -> jax.Array:
    """Spreads a kernel over a neighbourhood: `[side^2 Co, (reach + 1)^2 side^2 Ci]`.

    The first rows are the outputs whose row and column in the tile are even, the next ones those
    of odd columns, and so on: the four blocks that pooling compares.
    """
    taps, _, channels, features = kernel.shape
    free = (reach + 1) * side - taps
    kernel = kernel.transpose(3, 0, 1, 2)
    places = range(0, side, 2)
    spread = jnp.stack(
        [
            jnp.pad(kernel, ((0, 0), (i, free - i), (j, free - j), (0, 0)))
            for odd_row in range(2)
            for odd_col in range(2)
            for i in (place + odd_row for place in places)
            for j in (place + odd_col for place in places)
        ]
    )
    spread = spread.reshape(-1, reach + 1, side, reach + 1, side, channels)
    return kept(spread.transpose(0, 1, 3, 2, 4, 5).reshape(side * side * features, -1))
