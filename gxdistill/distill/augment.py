"""Differentiable Siamese augmentation: real and distilled images are changed by the same draw.

Zhao & Bilen 2021, https://arxiv.org/abs/2102.08259, with the symmetries of patches: seen through
the same change, distilled images learn what survives it, and may then be trained on with it.
Strengths are settings of ours.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from gxdistill import _check

_ANGLE = 15.0  # degrees
_SHIFT = 0.125  # of a side
_SCALE = 1.2
_BRIGHTNESS = 0.5  # in the network's normalised units
_CONTRAST = 0.5
_GAMMA = 1.5
_NOISE = 0.2  # Largest standard deviation, in the network's normalised units.

# Draws a map from places of the new image to places of the old one: a matrix [2, 2] over (row, col)
# and an offset [2], both seen from the centre and in units of the side.
_Affine = tuple[jax.Array, jax.Array]


def _flip(key: jax.Array) -> _Affine:
    sign = jnp.where(jax.random.bernoulli(key), -1.0, 1.0)
    return jnp.diag(jnp.array([1.0, sign])), jnp.zeros(2)


def _turn(key: jax.Array) -> _Affine:
    quarter = jnp.array([[0.0, 1.0], [-1.0, 0.0]])
    powers = jnp.stack([jnp.linalg.matrix_power(quarter, n) for n in range(4)])
    return powers[jax.random.randint(key, (), 0, 4)], jnp.zeros(2)


def _rotate(key: jax.Array) -> _Affine:
    angle = jnp.radians(_ANGLE) * jax.random.uniform(key, minval=-1.0)
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    return jnp.array([[cos, sin], [-sin, cos]]), jnp.zeros(2)


def _shift(key: jax.Array) -> _Affine:
    return jnp.eye(2), _SHIFT * jax.random.uniform(key, (2,), minval=-1.0)


def _scale(key: jax.Array) -> _Affine:
    return jnp.eye(2) * _SCALE ** jax.random.uniform(key, minval=-1.0), jnp.zeros(2)


def _brightness(images: jax.Array, key: jax.Array) -> jax.Array:
    return images + _BRIGHTNESS * jax.random.uniform(key, minval=-1.0)


def _contrast(images: jax.Array, key: jax.Array) -> jax.Array:
    mean = images.mean((-3, -2, -1), keepdims=True)
    return mean + (images - mean) * (1 + _CONTRAST * jax.random.uniform(key, minval=-1.0))


def _gamma(images: jax.Array, key: jax.Array) -> jax.Array:
    """Bends the greys between the darkest and the brightest of each image, which stay."""
    low, high = (f(images, (-3, -2, -1), keepdims=True) for f in (jnp.min, jnp.max))
    span = jnp.maximum(high - low, 1e-6)
    # Off zero, where the slope of a power has no bound.
    shares = jnp.clip((images - low) / span, 1e-3, 1)
    return low + span * shares ** (_GAMMA ** jax.random.uniform(key, minval=-1.0))


def _noise(images: jax.Array, key: jax.Array) -> jax.Array:
    strength, field = jax.random.split(key)
    grain = jax.random.normal(field, images.shape[-3:], images.dtype)
    return images + _NOISE * jax.random.uniform(strength) * grain


def _blur(images: jax.Array, key: jax.Array) -> jax.Array:
    """Mixes an image with its mean by the weights 1, 2, 1 over each side; edge pixels go on."""
    blurred = images
    for axis in (-3, -2):
        pad = [(0, 0)] * images.ndim
        pad[axis] = (1, 1)
        padded, n = jnp.pad(blurred, pad, mode="edge"), images.shape[axis]
        before, here, after = (
            jax.lax.slice_in_dim(padded, i, i + n, axis=axis % images.ndim) for i in range(3)
        )
        blurred = (before + 2 * here + after) / 4
    return images + jax.random.uniform(key) * (blurred - images)


_AFFINE: dict[str, Callable[[jax.Array], _Affine]] = {
    "flip": _flip,
    "turn": _turn,
    "rotate": _rotate,
    "shift": _shift,
    "scale": _scale,
}
_TONE: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "brightness": _brightness,
    "contrast": _contrast,
    "gamma": _gamma,
    "noise": _noise,
    "blur": _blur,
}
AUGMENTATIONS = (*_AFFINE, *_TONE)


def augment(images: jax.Array, key: jax.Array, names: Sequence[str]) -> jax.Array:
    """Changes all images by one draw; the same key is the same draw for any other images.

    Args:
      images: `[..., H, W, C]` float; square where they are turned or rotated.
      key: typed PRNG key.
      names: of `AUGMENTATIONS`: "flip" (left and right), "turn" (by quarters), "rotate" (up to 15
        degrees), "shift" (up to an eighth of a side), "scale" (up to 1.2 times), "brightness",
        "contrast", "gamma" (a power from 2/3 to 3/2 between an image's darkest and brightest),
        "noise" (of up to a fifth of a standard deviation), "blur" (up to a binomial of 3 pixels).
        Geometry comes first, in one bilinear resampling; past an edge its pixels go on.

    Returns:
      Images of the same shape.

    Raises:
      ValueError: a name is unknown.
    """
    for name in names:
        _check.one_of("augmentation", name, AUGMENTATIONS)
    keys = {name: jax.random.fold_in(key, i) for i, name in enumerate(AUGMENTATIONS)}
    moves = [_AFFINE[name](keys[name]) for name in names if name in _AFFINE]
    if moves:
        images = _resample(images, *_composed(moves))
    for name in names:
        if name in _TONE:
            images = _TONE[name](images, keys[name])
    return images


def augment_each(images: jax.Array, key: jax.Array, names: Sequence[str]) -> jax.Array:
    """Changes each image by a draw of its own: `[N, H, W, C]`, see `augment`."""
    keys = jax.random.split(key, len(images))
    return jax.vmap(lambda image, key: augment(image, key, names))(images, keys)


def _composed(moves: Sequence[_Affine]) -> _Affine:
    matrix, offset = jnp.eye(2), jnp.zeros(2)
    for turn, shift in moves:
        matrix, offset = matrix @ turn, matrix @ shift + offset
    return matrix, offset


def _resample(images: jax.Array, matrix: jax.Array, offset: jax.Array) -> jax.Array:
    """Looks each pixel up where the map says, between its four neighbours."""
    height, width, channels = images.shape[-3:]
    sides = jnp.array([height, width], images.dtype)
    centre = (sides - 1) / 2
    grid = jnp.stack(jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij"), axis=-1)
    place = (grid - centre) @ matrix.T + offset * sides + centre
    place = jnp.clip(place, 0, sides - 1).reshape(-1, 2)
    low = jnp.floor(place).astype(jnp.int32)
    high = jnp.minimum(low + 1, jnp.array([height - 1, width - 1]))
    share = place - low
    flat = images.reshape(*images.shape[:-3], height * width, channels)
    total = jnp.zeros((), images.dtype)
    for rows, by_row in ((low, 1 - share), (high, share)):
        for cols, by_col in ((low, 1 - share), (high, share)):
            pixels = jnp.take(flat, rows[:, 0] * width + cols[:, 1], axis=-2)
            total += pixels * (by_row[:, 0] * by_col[:, 1])[:, None]
    return total.reshape(images.shape)
