"""Augmentation of images with their label maps: geometry, stain, intensities; pure functions.

Each takes images `[N, H, W, C]` float32 from 0 to 1, label maps `[N, H, W]` and a key, draws for
each image by itself, and returns both in their shapes.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from gxdistill import _check

Pair = tuple[jax.Array, jax.Array]
Augmentation = Callable[[jax.Array, jax.Array, jax.Array], Pair]

_TURN = 15.0  # Degrees, to either side.
_ZOOM = 0.15  # Natural logarithm of the scale, to either side.
_SHIFT = 0.05  # Of the image's side, to either side.
_STAIN = 0.05  # By which a stain's amount is multiplied and shifted, to either side of 1 and 0.
_GAMMA = 0.25  # Natural logarithm of the exponent, to either side.
_CONTRAST, _BRIGHTNESS = 0.2, 0.1
_DARK = 1e-3  # Least transmission of light that a logarithm is taken of.

# Optical densities of red, green and blue under haematoxylin, eosin and a third stain: Ruifrok &
# Johnston, Anal Quant Cytol Histol 23(4):291, 2001.
STAINS = np.array([(0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78)])
_STAINS = STAINS / np.linalg.norm(STAINS, axis=1, keepdims=True)


def _uniform(key: jax.Array, shape: tuple[int, ...], reach: float) -> jax.Array:
    return jax.random.uniform(key, shape, minval=-reach, maxval=reach)


def dihedral(images: jax.Array, labels: jax.Array, key: jax.Array) -> Pair:
    """Mirrors and turns square images by right angles: one of eight ways each, as likely."""

    def turned(image: jax.Array, label: jax.Array, way: jax.Array) -> Pair:
        flip, turn, transpose = way & 1, way & 2, way & 4
        for axis, is_flipped in ((0, flip), (1, turn)):
            image = jnp.where(is_flipped, jnp.flip(image, axis), image)
            label = jnp.where(is_flipped, jnp.flip(label, axis), label)
        image = jnp.where(transpose, image.swapaxes(0, 1), image)
        return image, jnp.where(transpose, label.swapaxes(0, 1), label)

    if images.shape[1] != images.shape[2]:
        raise ValueError(
            f"Images of {images.shape[1]}x{images.shape[2]} pixels cannot be turned by right "
            f"angles. Take square patches, or `affine`."
        )
    return jax.vmap(turned)(images, labels, jax.random.randint(key, (len(images),), 0, 8))


def affine(images: jax.Array, labels: jax.Array, key: jax.Array) -> Pair:
    """Turns, zooms and shifts images about their middle; what comes from outside is the edge's.

    By up to 15 degrees, 16% and a twentieth of the side. Images are read between pixels, label maps
    at the nearest.
    """
    count, height, width, _ = images.shape
    turn, zoom, shift = jax.random.split(key, 3)
    angle = jnp.deg2rad(_uniform(turn, (count,), _TURN))
    scale = jnp.exp(_uniform(zoom, (count,), _ZOOM))
    moved = _uniform(shift, (count, 2), _SHIFT) * jnp.array([height, width])
    middle = jnp.array([(height - 1) / 2, (width - 1) / 2])
    grid = jnp.stack(jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij"), -1)

    def moved_pair(
        image: jax.Array, label: jax.Array, a: jax.Array, s: jax.Array, m: jax.Array
    ) -> Pair:
        rotation = jnp.array([[jnp.cos(a), -jnp.sin(a)], [jnp.sin(a), jnp.cos(a)]]) * s
        at = (grid - middle) @ rotation.T + middle + m
        return _between(image, at), _nearest(label, at)

    return jax.vmap(moved_pair)(images, labels, angle, scale, moved)


def _nearest(label: jax.Array, at: jax.Array) -> jax.Array:
    """Reads `[H, W]` at the pixels nearest to places (row, col), `[..., 2]`."""
    rows, cols = (
        jnp.clip(jnp.rint(at[..., i]), 0, side - 1).astype(jnp.int32)
        for i, side in enumerate(label.shape)
    )
    return label[rows, cols]


def _between(image: jax.Array, at: jax.Array) -> jax.Array:
    """Reads `[H, W, C]` between the four pixels around places (row, col), `[..., 2]`."""
    height, width, _ = image.shape
    at = jnp.clip(at, 0, jnp.array([height - 1, width - 1]))
    low = jnp.floor(at).astype(jnp.int32)
    high = jnp.minimum(low + 1, jnp.array([height - 1, width - 1]))
    part = (at - low)[..., None]
    (top, left), (bottom, right) = (jnp.moveaxis(x, -1, 0) for x in (low, high))
    down, across = part[..., 0, :], part[..., 1, :]
    upper = image[top, left] * (1 - across) + image[top, right] * across
    lower = image[bottom, left] * (1 - across) + image[bottom, right] * across
    return upper * (1 - down) + lower * down


def stain(images: jax.Array, labels: jax.Array, key: jax.Array) -> Pair:
    """Changes how strongly a tissue is stained, in three stains of optical density.

    Tellez et al., IEEE TMI 37(9):2126, 2018, https://doi.org/10.1109/TMI.2018.2820199.

    Raises:
      ValueError: images have no three channels.
    """
    if images.shape[-1] != 3:
        raise ValueError(
            f"Images of {images.shape[-1]} channels have no stain, which three colours tell. Leave "
            f"'stain' out."
        )
    factor, shift = jax.random.split(key)
    shape = (len(images), 1, 1, 3)
    density = -jnp.log(jnp.maximum(images, _DARK))
    amounts = density @ jnp.asarray(np.linalg.inv(_STAINS), images.dtype)
    amounts = amounts * (1 + _uniform(factor, shape, _STAIN)) + _uniform(shift, shape, _STAIN)
    changed = jnp.exp(-amounts @ jnp.asarray(_STAINS, images.dtype))
    return jnp.clip(changed, 0, 1), labels


def intensity(images: jax.Array, labels: jax.Array, key: jax.Array) -> Pair:
    """Changes brightness, contrast and the curve of grey values, of all channels alike."""
    power, contrast, brightness = jax.random.split(key, 3)
    shape = (len(images), 1, 1, 1)
    curved = images ** jnp.exp(_uniform(power, shape, _GAMMA))
    mean = curved.mean((1, 2, 3), keepdims=True)
    changed = (curved - mean) * (1 + _uniform(contrast, shape, _CONTRAST)) + mean
    return jnp.clip(changed + _uniform(brightness, shape, _BRIGHTNESS), 0, 1), labels


AUGMENTATIONS: dict[str, Augmentation] = {
    "dihedral": dihedral,
    "affine": affine,
    "stain": stain,
    "intensity": intensity,
}


def augment(names: Sequence[str], images: jax.Array, labels: jax.Array, key: jax.Array) -> Pair:
    """Augments by several ways, one after the other; jit-able.

    Args:
      names: among `AUGMENTATIONS`, in order; none leaves all as it is.
      images: `[N, H, W, C]` float32 from 0 to 1.
      labels: class of each pixel, `[N, H, W]` integer.
      key: typed PRNG key.

    Returns:
      Images and labels, in their shapes.

    Raises:
      ValueError: a name is unknown, or does not fit the images.

    Example:
      `augment(("dihedral", "stain"), images, labels, jax.random.key(0))`
    """
    for i, name in enumerate(names):
        _check.one_of("augmentation", name, tuple(AUGMENTATIONS))
        images, labels = AUGMENTATIONS[name](images, labels, jax.random.fold_in(key, i))
    return images, labels
