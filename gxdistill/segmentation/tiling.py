"""Images of any size, seen tile by tile: tiles overlap, and their edges count less."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from gxdistill import _check
from gxdistill.patching import patch_corners

Apply = Callable[[jax.Array], jax.Array]  # [n, size, size, C] -> [n, size, size, K]

_LEAST = 0.05  # Weight of a tile's outermost pixels beside 1 in its middle.


def weights(size: int) -> np.ndarray:
    """Weighs the pixels of a tile: 1 in its middle, falling in a straight line to its edges.

    Returns:
      `[size, size]` float32, all above 0.
    """
    _check.positive(size=size)
    place = np.arange(size) + 0.5
    ramp = np.maximum(np.minimum(place, size - place) / (size / 2), _LEAST)
    return np.outer(ramp, ramp).astype(np.float32)


def corners(shape: tuple[int, ...], size: int, overlap: int) -> np.ndarray:
    """Lists the upper left corners of the tiles that cover an image.

    Args:
      shape: of the image, height and width first, in pixels; neither below `size`.
      size: side of a tile in pixels.
      overlap: pixels that neighbouring tiles share, at least; the last ones share more.

    Returns:
      (row, col) in pixels, `[n, 2]` int32.

    Raises:
      ValueError: `overlap` is negative or not below `size`, or no tile fits.
    """
    if not 0 <= overlap < size:
        raise ValueError(
            f"`overlap` is {overlap}; tiles of {size} pixels may share 0 to {size - 1}. Lower it."
        )
    return patch_corners(shape, size, size - overlap, border=True)


def predict(
    apply: Apply, image: jax.Array, *, size: int, overlap: int, at_once: int = 4
) -> jax.Array:
    """Predicts each pixel of an image from the tiles that cover it; jit-able.

    Args:
      apply: gives tiles their values, as probabilities: `[n, size, size, C] -> [n, size, size, K]`.
      image: `[H, W, C]`, of any size; one smaller than a tile is continued by its last pixels.
      size: side of a tile in pixels.
      overlap: pixels that neighbouring tiles share.
      at_once: tiles of one call at most, which bound the memory.

    Returns:
      `[H, W, K]` float32: the mean of the tiles' values, weighted by `weights`.

    Raises:
      ValueError: as `corners`.

    References:
      Isensee et al., Nature Methods 18:203, 2021, https://doi.org/10.1038/s41592-020-01008-z, whose
      weights are a Gaussian.
    """
    height, width, channels = image.shape
    below, right = (max(0, size - side) for side in (height, width))
    padded = jnp.pad(image, ((0, below), (0, right), (0, 0)), mode="edge")
    listed = corners(padded.shape, size, overlap)
    at_once = min(at_once, len(listed))
    # The last call is filled up with tiles that are there already, and count nothing.
    count = -(-len(listed) // at_once) * at_once
    counted = jnp.asarray(np.arange(count) < len(listed), jnp.float32)
    places = jnp.asarray(np.resize(listed, (count, 2)))
    weight = jnp.asarray(weights(size))

    def cut(corner: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(padded, (*corner, 0), (size, size, channels))

    def add(
        sums: tuple[jax.Array, jax.Array], tiles: tuple[jax.Array, jax.Array]
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        some, counts = tiles
        values = apply(jax.vmap(cut)(some))
        for corner, value, is_counted in zip(some, values, counts, strict=True):
            w = weight * is_counted
            sums = _add_at(sums[0], value * w[..., None], corner), _add_at(sums[1], w, corner)
        return sums, None

    tile = jax.ShapeDtypeStruct((at_once, size, size, channels), image.dtype)
    classes = jax.eval_shape(apply, tile).shape[-1]
    zeros = jnp.zeros((*padded.shape[:2], classes)), jnp.zeros(padded.shape[:2])
    grouped = places.reshape(-1, at_once, 2), counted.reshape(-1, at_once)
    (total, weighed), _ = jax.lax.scan(add, zeros, grouped)
    return (total / weighed[..., None])[:height, :width]


def _add_at(total: jax.Array, values: jax.Array, corner: jax.Array) -> jax.Array:
    at = (*corner, *(0,) * (values.ndim - 2))
    there = jax.lax.dynamic_slice(total, at, values.shape)
    return jax.lax.dynamic_update_slice(total, there + values, at)


def averaged_over_flips(apply: Apply) -> Apply:
    """Makes an `apply` that averages over the four mirror images of what it is given."""

    def mean(tiles: jax.Array) -> jax.Array:
        values = [jnp.flip(apply(jnp.flip(tiles, axes)), axes) for axes in ((), (1,), (2,), (1, 2))]
        return sum(values[1:], values[0]) / 4

    return mean
