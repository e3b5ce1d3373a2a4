"""The gradient of a convolution for its kernel, block by block of rows: large images on a CPU.

The pixels that the taps of a kernel meet, put side by side, are nine times the image for a 3x3
kernel. Of a few rows at a time they stay in a core's cache between being gathered and multiplied,
which is several times faster than passing over the image once for each tap.
"""

import jax
import jax.numpy as jnp

_CACHED = 2**18  # Values that a CPU core's cache holds beside all else.
_FEW_CHANNELS = 32  # Up to here gathering takes longer than the product.
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
      rows: of outputs in a block, a divisor of H'; of few channels blocks are chosen here.

    Returns:
      The gradient of `sum(convolution(x, k) * y)` for k, `[*size, Ci, Co]`.
    """
    if stride == 1 and min(x.shape[3], y.shape[3]) <= _FEW_CHANNELS:
        return _correlate_few(x, y, size, pads)
    (count, tall, wide, features), channels = y.shape, x.shape[3]
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    (high, broad), blocks = size, tall // rows
    down, right = (rows - 1) * stride + 1, (wide - 1) * stride + 1

    def add(total: jax.Array, block: jax.Array) -> tuple[jax.Array, None]:
        image, first = block // blocks, block % blocks * rows
        part = _taken(padded, image, first * stride, (rows - 1) * stride + high)
        taps = [
            part[i : i + down : stride, j : j + right : stride]
            for i in range(high)
            for j in range(broad)
        ]
        gathered = jnp.concatenate(taps, -1).reshape(-1, high * broad * channels)
        observed = _taken(y, image, first, rows)
        # Features first: what is turned is then the smaller operand.
        return total + observed.reshape(-1, features).T @ gathered, None

    zeros = jnp.zeros((features, high * broad * channels), x.dtype)
    total, _ = jax.lax.scan(add, zeros, jnp.arange(count * blocks))
    return total.T.reshape(high, broad, channels, features)


def _correlate_few(x: jax.Array, y: jax.Array, size: tuple[int, int], pads: Pads) -> jax.Array:
    """Gathers an image's taps of a row, and the outputs' of a column: as much work, fewer copies.

    The product of row r, `[w Ci, w']`, with outputs r, r - 1, .., `[w', h Co]`, has for each tap
    what row r gives to it.
    """
    (count, tall, wide, features), channels, (high, broad) = y.shape, x.shape[3], size
    met = tall + high - 1  # Rows of an image that the kernel meets.
    most = max(1, _CACHED // (wide * (broad * channels + high * features)))
    blocks = -(-met // most)
    rows = -(-met // blocks)
    beyond = blocks * rows - met
    (top, bottom), beside = pads
    x = jnp.pad(x, ((0, 0), (top, bottom + beyond), beside, (0, 0)))
    y = jnp.pad(y, ((0, 0), (high - 1, high - 1 + beyond), (0, 0), (0, 0)))

    def add(total: jax.Array, block: jax.Array) -> tuple[jax.Array, None]:
        image, first = block // blocks, block % blocks * rows
        seen = _taken(x, image, first, rows)
        taps = jnp.concatenate([seen[:, j : j + wide] for j in range(broad)], -1)
        observed = _taken(y, image, first, rows + high - 1)
        of_rows = [observed[high - 1 - i :][:rows] for i in range(high)]
        of_x = taps.reshape(-1, broad * channels)
        of_y = jnp.concatenate(of_rows, -1).reshape(-1, high * features)
        return total + (of_y.T @ of_x if features_first else of_x.T @ of_y), None

    # What is turned is the smaller operand.
    features_first = high * features <= broad * channels
    shape = (broad * channels, high * features)
    zeros = jnp.zeros(shape[::-1] if features_first else shape, x.dtype)
    total, _ = jax.lax.scan(add, zeros, jnp.arange(count * blocks))
    total = total.T if features_first else total
    return total.reshape(broad, channels, high, features).transpose(2, 0, 1, 3)


def _taken(images: jax.Array, image: jax.Array, first: jax.Array, rows: int) -> jax.Array:
    """Takes so many rows of one image, `[rows, W, C]`."""
    zero = jnp.zeros_like(first)
    size = (1, rows, *images.shape[2:])
    return jax.lax.dynamic_slice(images, (image, first, zero, zero), size)[0]
