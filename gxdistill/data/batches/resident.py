"""Draws real batches: resident images, a sampler of their patches, one gather on the device."""

from functools import partial
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from gxdistill.data.batches.sampling import Sampler, draw_rows
from gxdistill.data.batches.streaming import Pixels
from gxdistill.patching import gather_patches
from gxdistill.pytrees import Batch, Cohort

_BLOCK_BYTES = 1 << 26  # Of images on their way to the device.


class Normalisation(NamedTuple):
    """How 8-bit pixels become the network's input: `(pixel / 255 - mean) / std`.

    Attributes:
      mean: one value a channel, on the scale from 0 to 1.
      std: likewise.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, pixels: jax.Array) -> jax.Array:
        """Normalises `[..., C]` uint8 to float32."""
        scale = jnp.asarray(self.std, jnp.float32) * 255
        shift = jnp.asarray(self.mean, jnp.float32) * 255
        return (pixels.astype(jnp.float32) - shift) / scale


def normalisation(cohort: Cohort) -> Normalisation:
    """Measures mean and standard deviation of each channel over all pixels of `cohort`."""
    # By histogram: exact, and no float copy of the images.
    counts = np.zeros((cohort.images.shape[-1], 256), np.int64)
    for image in cohort.images:
        for channel, levels in enumerate(counts):
            levels += np.bincount(image[..., channel].ravel(), minlength=256)
    return from_levels(counts)


def from_levels(counts: np.ndarray) -> Normalisation:
    """Takes mean and standard deviation from how often each level occurs, `[C, 256]`."""
    levels = np.arange(256) / 255
    shares = counts / counts.sum(axis=1, keepdims=True)
    mean = shares @ levels
    variance = (shares * np.square(levels - mean[:, None])).sum(axis=1)
    std = np.maximum(np.sqrt(variance), 1 / 255)
    return Normalisation(tuple(mean.tolist()), tuple(std.tolist()))


@flax.struct.dataclass
class Resident:
    """A cohort's images on the device and what is drawn of them; an argument of jitted code.

    A closure would make the images constants of the compiled program.

    Attributes:
      images: `[N, H, W, C]` uint8.
      sampler: of their patches.
    """

    images: jax.Array
    sampler: Sampler


def place(cohort: Cohort, sampler: Sampler) -> Resident:
    """Puts the images of a cohort on the device, a block at a time."""
    images = cohort.images
    some = max(1, _BLOCK_BYTES * len(images) // max(images.nbytes, 1))
    if some >= len(images):
        return Resident(jnp.asarray(np.asarray(images)), sampler)
    placed = jnp.zeros(images.shape, jnp.uint8)
    for begin in range(0, len(images), some):
        begin = min(begin, len(images) - some)  # the last block overlaps: one program serves all
        placed = _place_block(placed, np.asarray(images[begin : begin + some]), begin)
    return Resident(placed, sampler)


# In the memory of the former images: twice a cohort may not fit.
@partial(jax.jit, donate_argnums=0)
def _place_block(images: jax.Array, block: jax.Array, begin: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_slice_in_dim(images, block, begin, axis=0)


def of_pixels(normalise: Normalisation, pixels: Pixels, _: jax.Array) -> Batch:
    """Makes a batch of what `streaming.Streaming` read; as a feed's `draw`, needs no key."""
    images, labels, patients = map(jnp.asarray, pixels)
    return Batch(normalise(images), labels, patients)


def draw_pixels(feed: Resident, key: jax.Array, *, size: int, batch: int) -> Pixels:
    """Draws patches with replacement, see `sampling.draw_rows`; jit-able.

    Args:
      feed: from `place`.
      key: typed PRNG key.
      size: side of a patch in pixels.
      batch: N, patches of the batch.

    Returns:
      The patches, by turns of the classes.
    """
    rows = draw_rows(feed.sampler, key, batch)
    chosen = jax.tree.map(lambda column: column[rows], feed.sampler.table)
    pixels = gather_patches(feed.images, chosen.image, chosen.row, chosen.col, size=size)
    # Apart from the arithmetic: XLA on CPUs would make of both one loop, four times as slow, and
    # turn the batch's axes round for it.
    return Pixels(jax.lax.optimization_barrier(pixels), chosen.label, chosen.patient)


def draw_batch(
    feed: Resident, key: jax.Array, *, size: int, batch: int, normalise: Normalisation
) -> Batch:
    """Draws a batch as `draw_pixels` does, and normalises it."""
    pixels = draw_pixels(feed, key, size=size, batch=batch)
    return of_pixels(normalise, pixels, key)
