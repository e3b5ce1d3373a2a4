"""Bounded features of images that no private image chose.

Maps are fixed by a key and by images that were drawn from no patient: smoothed noise. What is
summed over patients has L2 norm 1 at most, by construction, so that nothing is clipped away.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gxdistill import _check
from gxdistill.privacy.prior import PRIORS

Map = Callable[[jax.Array], jax.Array]

_LEAST = 1e-6  # Norm that is taken for 0, and its square under roots.
_ROUNDING = 1 + 1e-5  # More than what float32 makes of a norm.
_DARK = 1e-2  # Gradient, of values from 0 to 1, below which an edge has no direction.
_FLOOR = 1e-3  # Of the largest variance: what a direction of no variance is taken to have.
_PRIOR = 4000  # Images without a patient.
_FILTERS = 32
_BLOCK = 500  # Images of which features are computed at once.


class Linear(NamedTuple):
    """Centred coordinates along the main directions of some vectors, scaled.

    Attributes:
      mean: `[d]`.
      directions: `[d, k]`, orthonormal columns.
      scale: `[k]`, by which the coordinates are multiplied.
    """

    mean: jax.Array
    directions: jax.Array
    scale: jax.Array

    def __call__(self, vectors: jax.Array) -> jax.Array:
        """Maps `[N, d]` to `[N, k]`."""
        return (vectors - self.mean) @ self.directions * self.scale

    def back(self, coordinates: jax.Array) -> jax.Array:
        """Maps `[N, k]` to the nearest `[N, d]` that has these coordinates."""
        return self.mean + coordinates / self.scale @ self.directions.T


def unit(vectors: jax.Array) -> jax.Array:
    """Scales `[..., d]` to norm 1, never above it; what is 0 stays so."""
    length = jnp.sqrt(jnp.square(vectors).sum(-1, keepdims=True) + _LEAST**2)
    return vectors / (_ROUNDING * length)


def shortened(vectors: jax.Array) -> jax.Array:
    """Scales those of `[..., d]` that are longer than 1 down to norm 1."""
    length = jnp.sqrt(jnp.square(vectors).sum(-1, keepdims=True) + _LEAST**2)
    return vectors / jnp.maximum(_ROUNDING * length, 1)


def principal(vectors: jax.Array, count: int, power: float) -> Linear:
    """Finds the main directions of vectors, and scales each by its variance to `-power / 2`.

    Args:
      vectors: `[N, d]`; of no patient.
      count: k, number of directions, d at most.
      power: 0 leaves the coordinates as they are, 1 whitens them.
    """
    from scipy import linalg

    mean = vectors.mean(axis=0)
    centred = np.asarray(vectors - mean, np.float64)
    covariance = centred.T @ centred / len(centred)
    size = len(covariance)
    largest = linalg.eigh(covariance, subset_by_index=(max(size - count, 0), size - 1))
    variances, directions = largest[0][::-1], largest[1][:, ::-1]
    scale = (variances + _FLOOR * variances[0]) ** (-power / 2)
    return Linear(mean, *(jnp.asarray(part, jnp.float32) for part in (directions, scale)))


def gradients(images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Takes central differences along rows and columns; 0 at the edges."""
    inner = images[:, 2:] - images[:, :-2], images[:, :, 2:] - images[:, :, :-2]
    by_row = jnp.pad(inner[0], ((0, 0), (1, 1), (0, 0), (0, 0)))
    by_column = jnp.pad(inner[1], ((0, 0), (0, 0), (1, 1), (0, 0)))
    return by_row, by_column


def oriented_gradients(images: jax.Array, cell: int = 4, bins: int = 8) -> jax.Array:
    """Sums edges by direction over square cells, and over cells that lie half a side further.

    After Dalal & Triggs 2005, https://doi.org/10.1109/CVPR.2005.177; an edge of strength m whose
    direction is t off that of a bin counts as m cos(t)^4 where the cosine is positive, which has a
    derivative everywhere; and roots are taken, as of histograms.

    Args:
      images: `[N, H, W, C]`, from 0 to 1.
      cell: side of a cell in pixels.
      bins: directions of a full turn.

    Returns:
      `[N, d]`, all cells' sums.

    Raises:
      ValueError: `cell` or `bins` is not positive, or no cell fits.
    """
    _check.positive(cell=cell, bins=bins)
    if min(images.shape[1:3]) < cell:
        raise ValueError(
            f"Images of {images.shape[1]}x{images.shape[2]} pixels have no cell of {cell}. Lower "
            f"`cell`."
        )
    by_row, by_column = gradients(images)
    strength = jnp.sqrt(by_row**2 + by_column**2 + _DARK**2)
    angles = 2 * np.pi * np.arange(bins) / bins
    along = by_row[..., None] * np.sin(angles) + by_column[..., None] * np.cos(angles)
    edges = (jnp.maximum(along, 0) / strength[..., None]) ** 4 * strength[..., None]
    edges = edges.reshape(*edges.shape[:3], -1)
    half = cell // 2
    grids = [edges]
    if half and min(images.shape[1:3]) >= cell + half:
        grids.append(edges[:, half:, half:])
    sums = [_cell_sums(grid, cell).reshape(len(images), -1) for grid in grids]
    return jnp.sqrt(jnp.concatenate(sums, axis=1) + _LEAST)


def _cell_sums(values: jax.Array, cell: int) -> jax.Array:
    """Sums `[N, H, W, C]` over squares; what is left of a side is dropped."""
    rows, columns = values.shape[1] // cell, values.shape[2] // cell
    kept = values[:, : rows * cell, : columns * cell]
    return kept.reshape(len(values), rows, cell, columns, cell, -1).sum(axis=(2, 4))


def random_convolutions(images: jax.Array, key: jax.Array, filters: int, cell: int) -> jax.Array:
    """Sums what random filters of 5x5 pixels respond, positive and negative apart, over cells.

    Each filter has mean 0 and norm 1. After Saxe et al. 2011, whose networks of random weights
    classify well, https://icml.cc/2011/papers/551_icmlpaper.pdf.

    Args:
      images: `[N, H, W, C]`, from 0 to 1.
      key: typed PRNG key of the filters.
      filters: number of them.
      cell: side of a cell in pixels.

    Returns:
      `[N, d]`, roots of the sums.
    """
    kernels = jax.random.normal(key, (5, 5, images.shape[-1], filters))
    kernels -= kernels.mean(axis=(0, 1, 2))
    kernels /= jnp.sqrt(jnp.square(kernels).sum(axis=(0, 1, 2)))
    responses = jax.lax.conv_general_dilated(
        images, kernels, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    halves = jnp.concatenate([jnp.maximum(responses, 0), jnp.maximum(-responses, 0)], axis=-1)
    return jnp.sqrt(_cell_sums(halves, cell).reshape(len(images), -1) + _LEAST)


def scattering(images: jax.Array, angles: int = 8) -> jax.Array:
    """Averages moduli of wavelets, and of wavelets of these, over windows of about 4 pixels.

    Mallat 2012, https://doi.org/10.1002/cpa.21413, by Morlet wavelets of two scales as Bruna &
    Mallat 2013, https://arxiv.org/abs/1203.1513; with it alone linear classifiers of digits were
    private first, Tramer & Boneh 2021, https://arxiv.org/abs/2011.11660.

    Args:
      images: `[N, H, W, C]`, from 0 to 1.
      angles: L, directions of half a turn.

    Returns:
      `[N, d]`: 1 + 2 L + L^2 averages for each window and channel.
    """
    pad = 2  # What is periodic would see the opposite edge.
    padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="edge")
    planes = jnp.moveaxis(padded, -1, 1)
    height, width = planes.shape[2:]
    fine, coarse = (_wavelets(height, width, scale, angles) for scale in (0, 1))
    average = _averaging(height, pad), _averaging(width, pad)

    def windows(values: jax.Array) -> jax.Array:
        means = jnp.einsum("ih,nchw,jw->ncij", average[0], values, average[1])
        return means.reshape(len(values), -1)

    def modulus(spectrum: jax.Array, wavelet: np.ndarray) -> jax.Array:
        return _length(jnp.fft.ifft2(spectrum * wavelet))

    spectrum = jnp.fft.fft2(planes)
    parts = [windows(planes), *(windows(modulus(spectrum, wavelet)) for wavelet in coarse)]
    for wavelet in fine:
        first = modulus(spectrum, wavelet)
        of_first = jnp.fft.fft2(first)
        parts += [windows(first), *(windows(modulus(of_first, second)) for second in coarse)]
    return jnp.concatenate(parts, axis=1)


def _length(values: jax.Array) -> jax.Array:
    """Takes the modulus of complex numbers, with a derivative at 0."""
    return jnp.sqrt(values.real**2 + values.imag**2 + _LEAST**2)


def _wavelets(height: int, width: int, scale: int, angles: int) -> np.ndarray:
    """Makes the transfer functions of Morlet wavelets, `[L, H, W]` float32.

    Their width is 0.8 * 2^scale pixels, twice that across, their frequency 3 pi / 4 / 2^scale.
    """
    rows, columns = np.meshgrid(
        *(2 * np.pi * np.fft.fftfreq(n) for n in (height, width)), indexing="ij"
    )
    sigma, frequency = 0.8 * 2**scale, 0.75 * np.pi / 2**scale

    def gabor(angle: float, centre: float) -> np.ndarray:
        total = np.zeros((height, width))
        for turns in np.ndindex(3, 3):  # A grid of pixels knows a frequency only up to a turn.
            y, x = (2 * np.pi * (turn - 1) for turn in turns)
            along = (columns + x) * np.cos(angle) + (rows + y) * np.sin(angle) - centre
            across = (rows + y) * np.cos(angle) - (columns + x) * np.sin(angle)
            total += np.exp(-(sigma**2) * (along**2 + (2 * across) ** 2) / 2)
        return total

    wavelets = []
    for i in range(angles):
        angle = np.pi * i / angles
        wave, bump = gabor(angle, frequency), gabor(angle, 0)
        wavelets.append(wave - bump * wave[0, 0] / bump[0, 0])  # of mean 0
    return np.asarray(wavelets, np.float32)


def _averaging(side: int, pad: int) -> np.ndarray:
    """Makes the Gaussian windows of a padded side: `[n, side]`, one for each 4 pixels."""
    centres = np.arange(pad + 1.5, side - pad, 4)
    weights = np.exp(-((np.arange(side) - centres[:, None]) ** 2) / (2 * 1.6**2))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


def cell_moments(images: jax.Array, cell: int) -> jax.Array:
    """Averages brightness, its square and the strength of edges over square cells.

    Args:
      images: `[N, H, W, C]`, from 0 to 1.
      cell: side of a cell in pixels.

    Returns:
      `[N, d]`: the three, for each cell and channel.
    """
    by_row, by_column = gradients(images)
    edges = jnp.sqrt(by_row**2 + by_column**2 + _LEAST)
    planes = jnp.concatenate([images, 2 * edges, images**2], axis=-1)
    return _cell_sums(planes, cell).reshape(len(images), -1) / cell**2


KINDS: dict[str, Callable[[jax.Array, int], jax.Array]] = {
    "oriented_gradients": oriented_gradients,
    "scattering": lambda images, _: scattering(images),
    "random_convolutions": lambda images, cell: random_convolutions(
        images, jax.random.key(0, impl="threefry2x32"), _FILTERS, cell
    ),
    "cell_moments": cell_moments,
}


class Pixels(NamedTuple):
    """Bounded coordinates of images, from which images are made again.

    Attributes:
      linear: coordinates of flat images.
      radius: that of coordinates which become 1 long.
      variances: `[k]`, of the coordinates of the prior.
      shape: of an image, `[H, W, C]`.
    """

    linear: Linear
    radius: float
    variances: jax.Array
    shape: tuple[int, int, int]

    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps `[N, H, W, C]` to `[N, k]` of norm 1 at most."""
        return shortened(self.linear(images.reshape(len(images), -1)) / self.radius)

    def back(self, coordinates: jax.Array) -> jax.Array:
        """Maps `[N, k]` to images, about from 0 to 1."""
        return self.linear.back(coordinates * self.radius).reshape(-1, *self.shape)

    def rest(self, images: jax.Array) -> jax.Array:
        """Returns what of images `[N, H, W, C]` no coordinates hold."""
        flat = images.reshape(len(images), -1)
        return (flat - self.linear.back(self.linear(flat))).reshape(images.shape)


class Features(NamedTuple):
    """What is released of an image: two bounded vectors.

    Attributes:
      describe: maps `[N, H, W, C]`, from 0 to 1, to `[N, d]` of norm 1 at most, for a teacher.
      pixels: maps them to `[N, k]`, from which images are drawn.
      prior: draws images without a patient, `(key, count, shape) -> [N, H, W, C]`.
    """

    describe: Map
    pixels: Pixels
    prior: Callable[[jax.Array, int, tuple[int, int, int]], jax.Array]


def create(
    kind: str,
    *,
    shape: tuple[int, int, int],
    prior: str,
    count: int,
    pixels: int,
    cell: int = 4,
    power: float = 0.7,
    drawn: int = 0,
) -> Features:
    """Makes the features of images of a shape; the same arguments give the same ones.

    Coordinates are along the main directions of what the features of a prior are: images without a
    patient. A direction is weighed less the more such images vary along it.

    Args:
      kind: one of `KINDS`.
      shape: of an image, `[H, W, C]`.
      prior: one of `PRIORS`.
      count: d, number of features; fewer where the kind has fewer.
      pixels: k, number of coordinates that images are made of; fewer where there are fewer pixels.
      cell: side of the cells in pixels, where the kind has cells.
      power: see `principal`.
      drawn: images of the prior; 0 draws 4,000.

    Raises:
      ValueError: a name is unknown, or a number out of range.
    """
    _check.one_of("features", kind, tuple(KINDS))
    _check.one_of("prior", prior, tuple(PRIORS))
    _check.positive(count=count, pixels=pixels, cell=cell)
    images = PRIORS[prior](jax.random.key(1, impl="threefry2x32"), drawn or _PRIOR, shape)
    raw = jax.jit(lambda images: unit(KINDS[kind](images, cell)))
    vectors = in_blocks(raw, images)
    linear = principal(vectors, min(count, vectors.shape[1]), power)
    flat = images.reshape(len(images), -1)
    coordinates = principal(flat, min(pixels, flat.shape[1]), 0.0)
    radius = float(np.quantile(np.linalg.norm(coordinates(flat), axis=1), 0.9))
    return Features(
        lambda images: unit(linear(unit(KINDS[kind](images, cell)))),
        Pixels(coordinates, radius, jnp.var(coordinates(flat) / radius, axis=0), shape),
        PRIORS[prior],
    )


def in_blocks(function: Map, images: jax.Array, size: int = _BLOCK) -> jax.Array:
    """Applies a function of `[N, ...]` to some rows at a time."""
    parts = [function(images[at : at + size]) for at in range(0, len(images), size)]
    return jnp.concatenate(parts)
