"""Images of no patient: what features are fitted to in place of private images."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

_LEAST = 1e-6  # Deviation that is taken for 0.
_AT_ONCE = 500  # Images of strokes that are drawn together.

Lines = tuple[jax.Array, jax.Array]


@partial(jax.jit, static_argnums=(1, 2))
def smooth_noise(key: jax.Array, count: int, shape: tuple[int, int, int]) -> jax.Array:
    """Draws images of no patient: noise whose power falls with frequency, as that of pictures does.

    Power goes as f^-2a with an `a` from 0.5 to 2 for each image; mean and contrast vary, too. After
    Field 1987, https://doi.org/10.1364/JOSAA.4.002379.

    Args:
      key: typed PRNG key.
      count: N, number of images.
      shape: of one, `[H, W, C]`.

    Returns:
      `[N, H, W, C]` float32, from 0 to 1.
    """
    noise_key, steep_key, mean_key, contrast_key = jax.random.split(key, 4)
    height, width, _ = shape
    frequency = jnp.hypot(jnp.fft.fftfreq(height)[:, None], jnp.fft.fftfreq(width)[None])
    frequency = jnp.maximum(frequency, 1 / max(height, width))[..., None]

    def drawn(key: jax.Array, low: float, high: float) -> jax.Array:
        return jax.random.uniform(key, (count, 1, 1, 1), jnp.float32, low, high)

    spectrum = jnp.fft.fft2(jax.random.normal(noise_key, (count, *shape)), axes=(1, 2))
    fields = jnp.fft.ifft2(spectrum / frequency ** drawn(steep_key, 0.5, 2), axes=(1, 2)).real
    fields -= fields.mean((1, 2, 3), keepdims=True)
    fields /= fields.std((1, 2, 3), keepdims=True) + _LEAST
    mean, contrast = drawn(mean_key, 0.1, 0.9), drawn(contrast_key, 0.03, 0.3)
    return jnp.clip(mean + contrast * fields, 0, 1)


def strokes(key: jax.Array, count: int, shape: tuple[int, int, int]) -> jax.Array:
    """Draws images of no writer: one to three strokes of a pen, bent at random, in the middle.

    Curves of a program in place of data, as Tang et al. 2023, https://arxiv.org/abs/2306.06076,
    take images of random processes.

    Args:
      key: typed PRNG key.
      count: N, number of images.
      shape: of one, `[H, W, C]`.

    Returns:
      `[N, H, W, C]` float32, from 0 to 1.
    """
    number = min(count, _AT_ONCE)
    keys = jax.random.split(key, -(-count // number))
    return jnp.concatenate([_ink(_lines(key, number, shape), shape) for key in keys])[:count]


@partial(jax.jit, static_argnums=(1, 2))
def _lines(key: jax.Array, number: int, shape: tuple[int, int, int]) -> Lines:
    """Draws the points of strokes in pixels, `[N, P, 2]`, and half the pen's width, `[N, 1, 1]`."""
    points = 24
    keys = iter(jax.random.split(key, 10))

    def uniform(low: float, high: float, *more: int) -> jax.Array:
        return jax.random.uniform(next(keys), (number, 3, *more), jnp.float32, low, high)

    time = jnp.linspace(0, 1, points)
    waves = jnp.stack([jnp.cos(np.pi * i * time) for i in range(4)])
    bends = (
        uniform(0, 3.5, 1)
        * jax.random.normal(next(keys), (number, 3, 4))
        * jnp.float32([1, 1.4, 1.4, 1.4])
    )
    angle = uniform(0, 2 * np.pi, 1) + jnp.cumsum(bends @ waves, axis=2) * 2 / points
    moves = jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=-1) * uniform(8, 38, 1, 1) / points
    lines = jnp.cumsum(moves, axis=2)
    # Strokes after the first go through a point of it, or are not there.
    at = jax.random.randint(next(keys), (number, 3, 2, 1, 1), 0, points)
    through = jnp.take_along_axis(lines, at[:, :, 0], axis=2)
    met = jnp.take_along_axis(lines[:, :1].repeat(3, axis=1), at[:, :, 1], axis=2)
    nearby = met + 1.5 * jax.random.normal(next(keys), (number, 3, 1, 2))
    strokes = jax.random.choice(
        next(keys), jnp.arange(1, 4), (number, 1, 1, 1), p=jnp.float32([0.5, 0.35, 0.15])
    )
    first = jnp.arange(3)[:, None, None] == 0
    lines = jnp.where(first, lines, lines - through + nearby)
    lines = jnp.where(jnp.arange(3)[:, None, None] < strokes, lines, lines[:, :1])
    lines = lines.reshape(number, -1, 2)
    # In a square of 15 to 18.5 of 28 pixels, its middle nearly that of the image.
    side = min(shape[:2]) / 28
    extent = jnp.maximum(jnp.ptp(lines, axis=1).max(axis=1), 6)[:, None, None]
    size_key, place_key, width_key = jax.random.split(next(keys), 3)
    lines *= side * jax.random.uniform(size_key, (number, 1, 1), minval=15, maxval=18.5) / extent
    middle = (jnp.float32(shape[:2]) - 1) / 2
    middle += 0.5 * side * jax.random.normal(place_key, (number, 1, 2))
    lines += middle - lines.mean(axis=1, keepdims=True)
    width = side * jax.random.uniform(width_key, (number, 1, 1), minval=0.6, maxval=1.6)
    return lines, width


@partial(jax.jit, static_argnums=1)
def _ink(drawn: Lines, shape: tuple[int, int, int]) -> jax.Array:
    """Inks the pixels near the points of strokes."""
    lines, width = drawn
    number, side = len(lines), min(shape[:2]) / 28
    rows, columns = (jnp.arange(n, dtype=jnp.float32) for n in shape[:2])

    def nearest(least: jax.Array, point: jax.Array) -> tuple[jax.Array, None]:
        by_row = jnp.square(rows - point[:, :1])[:, :, None]
        by_column = jnp.square(columns - point[:, 1:])[:, None, :]
        return jnp.minimum(least, by_row + by_column), None

    start = jnp.full((number, *shape[:2]), jnp.inf)
    squares, _ = jax.lax.scan(nearest, start, jnp.moveaxis(lines, 1, 0))
    ink = jnp.clip(1.3 - 0.9 * (jnp.sqrt(squares) - width) / side, 0, 1)
    return jnp.repeat(ink[..., None], shape[2], axis=-1)


PRIORS: dict[str, Callable[[jax.Array, int, tuple[int, int, int]], jax.Array]] = {
    "smooth_noise": smooth_noise,
    "strokes": strokes,
}
