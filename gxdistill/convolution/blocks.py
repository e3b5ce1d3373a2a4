"""The gradient of a convolution for its kernel, block by block of rows: large images on a CPU.

The pixels that the taps of a kernel meet, put side by side, are nine times the image for a 3x3
kernel. Of a few rows at a time they stay in a core's cache between being gathered and multiplied,
which is several times faster than passing over the image once for each tap.
"""

import jax
import jax.numpy as jnp

_CACHED = 2**18  # Values that a CPU core's cache holds beside all else.
_MANY_PIXELS = 64  # Outputs; a product over fewer is not worth a step of a loop.

Pads = tuple[tuple[int, int], tuple[int, int]]


def rows_at_once(outputs: tuple[int, int], gathered: int) -> int:
    """Counts the rows of outputs that make a block.

    Args:
      outputs: height and width of what the convolution gives.
      gathered: values that all taps meet for one output: taps times channels.

    Returns:
      A divisor of the height; 0 where blocks would be too small to be worth it.
    """
    tall, wide = outputs
    most = max(1, min(tall, _CACHED // (wide * gathered)))
    rows = next(count for count in range(most, 0, -1) if tall % count == 0)
    return rows if rows * wide >= _MANY_PIXELS else 0


def correlate(
    x: jax.Array, y: jax.Array, size: tuple[int, int], *, stride: int, pads: Pads, rows: int
) -> jax.Array:
    """Correlates images with the direction that the outputs of their convolution are observed from.

    Args:
      x: `[N, H, W, Ci]`.
      y: `[N, H', W', Co]`.
      size: height and width of the kernel.
      stride: step of the convolution in pixels.
      pads: of it, as ((top, bottom), (left, right)).
      rows: of outputs in a block, a divisor of H'.

    Returns:
      The gradient of `sum(convolution(x, k) * y)` for k, `[*size, Ci, Co]`.
    """
    (count, tall, wide, features), channels = y.shape, x.shape[3]
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    (high, broad), blocks = size, tall // rows
    seen = (1, (rows - 1) * stride + high, padded.shape[2], channels)
    down, right = (rows - 1) * stride + 1, (wide - 1) * stride + 1

    def add(total: jax.Array, block: jax.Array) -> tuple[jax.Array, None]:
        image, first = block // blocks, block % blocks * rows
        zero = jnp.zeros_like(first)
        part = jax.lax.dynamic_slice(padded, (image, first * stride, zero, zero), seen)[0]
        taps = [
            part[i : i + down : stride, j : j + right : stride]
            for i in range(high)
            for j in range(broad)
        ]
        gathered = jnp.concatenate(taps, -1).reshape(-1, high * broad * channels)
        observed = jax.lax.dynamic_slice(y, (image, first, zero, zero), (1, rows, wide, features))
        # Features first: what is turned is then the smaller operand.
        return total + observed.reshape(-1, features).T @ gathered, None

    zeros = jnp.zeros((features, high * broad * channels), x.dtype)
    total, _ = jax.lax.scan(add, zeros, jnp.arange(count * blocks))
    return total.T.reshape(high, broad, channels, features)
