"""What overlapping patches share of convolutions: computed once for the image, not for each patch.

A patch differs from the image around it only where a convolution sees the zeros that a patch is
padded with: in the outermost rows and columns of what pooling leaves, which are computed for each
patch from a strip of it. All else is a window of one of the image's maps, of which there is one for
each way that pooling's pairs of pixels can lie over the image.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from gxdistill.convolution.conv import conv_pool_relu

Layer = tuple[jax.Array, jax.Array]  # kernel [k, k, Ci, Co] and bias [Co]
ALIGNED = 2  # Corners must be multiples of it: the first pooling's pairs lie alike in all patches.


def image_maps(image: jax.Array, layers: Sequence[Layer]) -> jax.Array:
    """Convolves and pools an image `[H, W, C]` once for each place of its last pooling.

    Returns:
      `[phases, phases, h, w, Co]`: the map at (p, q) begins p times `ALIGNED` pixels down, and q
      times to the right.
    """
    step = 2 ** len(layers)
    phases = step // ALIGNED
    # Of one size, so that they stack: what lies past the edge belongs to no patch.
    padded = jnp.pad(image, ((0, step), (0, step), (0, 0)))

    def of_phase(at: jax.Array) -> jax.Array:
        return conv_pool_relu(jax.lax.dynamic_slice(padded, at, image.shape)[None], layers)[0]

    # One after another, for each takes as much memory as some tens of images.
    begins = [(ALIGNED * p, ALIGNED * q, 0) for p in range(phases) for q in range(phases)]
    maps = jax.lax.map(of_phase, jnp.array(begins))
    return maps.reshape(phases, phases, *maps.shape[1:])


def patch_maps(
    image: jax.Array, maps: jax.Array, corners: jax.Array, layers: Sequence[Layer], *, size: int
) -> jax.Array:
    """Gives each patch what `conv_pool_relu` makes of it.

    Args:
      image: `[H, W, C]`.
      maps: of it, from `image_maps`.
      corners: of patches within it, multiples of `ALIGNED`, `[n, 2]` integer.
      layers: kernels and biases, as of `conv_pool_relu`.
      size: side of a patch in pixels.

    Returns:
      `[n, h, w, Co]`.
    """
    step, (first, last, count) = 2 ** len(layers), _own(size, layers)
    phases, starts = corners % step // ALIGNED, corners // step

    def cut(phase: jax.Array, start: jax.Array) -> jax.Array:
        where, shape = (*phase, *start, 0), (1, 1, count, count, maps.shape[-1])
        return jax.lax.dynamic_slice(maps, where, shape)[0, 0]

    def strips(down: int, right: int, tall: int, wide: int) -> jax.Array:
        """Cuts the same part out of each patch, and convolves it as if it was all of it."""
        shape = (tall, wide, image.shape[-1])

        def part(at: jax.Array) -> jax.Array:
            return jax.lax.dynamic_slice(image, (at[0] + down, at[1] + right, 0), shape)

        return conv_pool_relu(jax.vmap(part)(corners), layers)

    values = jax.vmap(cut)(phases, starts)
    # A strip holds all that its values see; begun a step before, its own zeros reach none of them.
    high = step * (first - 1) + _reach(layers)[1] + 1
    values = values.at[:, :first].set(strips(0, 0, high, size)[:, :first])
    values = values.at[:, :, :first].set(strips(0, 0, size, high)[:, :, :first])
    if last:
        low = step * (count - last - 1)
        values = values.at[:, -last:].set(strips(low, 0, size - low, size)[:, -last:])
        values = values.at[:, :, -last:].set(strips(0, low, size, size - low)[:, :, -last:])
    return values


def _reach(layers: Sequence[Layer]) -> tuple[int, int]:
    """Tells from which to which pixel the first value of the last layer's output sees."""
    last = 0
    for kernel, _ in reversed(layers):
        last = 2 * last + 1 + len(kernel) - 1
    before = len(layers[0][0]) // 2
    return -before, last - before


def _own(size: int, layers: Sequence[Layer]) -> tuple[int, int, int]:
    """Counts the first and the last rows of a patch's map that see its padding, and all rows."""
    step, (first, last) = 2 ** len(layers), _reach(layers)
    count = size - 2 * first
    for kernel, _ in layers:
        count = (count - len(kernel) + 1) // 2
    early = sum(step * i + first < 0 for i in range(count))
    late = sum(step * i + last >= size for i in range(count))
    return early, late, count
