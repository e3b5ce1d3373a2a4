"""Draws real batches: resident images, a patch table, one gather on the device."""

from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from gxdistill.patching import gather_patches
from gxdistill.pytrees import Batch, Cohort, PatchTable


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
    levels = np.arange(256) / 255
    means, stds = [], []
    for channel in range(cohort.images.shape[-1]):
        counts = np.bincount(cohort.images[..., channel].ravel(), minlength=256)
        mean = counts @ levels / counts.sum()
        std = np.sqrt(counts @ np.square(levels - mean) / counts.sum())
        means.append(float(mean))
        stds.append(float(max(std, 1 / 255)))
    return Normalisation(tuple(means), tuple(stds))


@flax.struct.dataclass
class Resident:
    """A cohort and its patch table on the device, ready to draw from; an argument of jitted code.

    A closure would make the images constants of the compiled program.

    Attributes:
      images: `[N, H, W, C]` uint8.
      table: patches in order of class, columns `[M]` int32.
      starts: `[K]` int32, first row of each class.
      counts: `[K]` int32, rows of each class.
      present: `[K']` int32, the classes that have rows.
    """

    images: jax.Array
    table: PatchTable
    starts: jax.Array
    counts: jax.Array
    present: jax.Array


def resident(cohort: Cohort, table: PatchTable) -> Resident:
    """Puts the images of a cohort and its patches, sorted by class, on the device."""
    order = np.argsort(table.label, kind="stable")
    counts = np.bincount(table.label).astype(np.int32)
    starts = (np.cumsum(counts) - counts).astype(np.int32)
    present = np.flatnonzero(counts).astype(np.int32)
    columns = PatchTable(*map(jnp.asarray, table.select(order)))  # type: ignore[arg-type]
    device = map(jnp.asarray, (starts, counts, present))
    return Resident(jnp.asarray(cohort.images), columns, *device)


def draw_balanced(
    feed: Resident, key: jax.Array, *, size: int, batch: int, normalise: Normalisation
) -> Batch:
    """Draws each class equally often, with replacement; jit-able.

    Args:
      feed: from `resident`.
      key: typed PRNG key.
      size: side of a patch in pixels.
      batch: N, patches of the batch; classes differ by one patch at most.
      normalise: applied to the patches.

    Returns:
      The batch, ordered by turns of the classes.
    """
    classes = jnp.resize(feed.present, (batch,))
    rows = feed.starts[classes] + jax.random.randint(key, (batch,), 0, feed.counts[classes])
    chosen = jax.tree.map(lambda column: column[rows], feed.table)
    pixels = gather_patches(feed.images, chosen.image, chosen.row, chosen.col, size=size)
    return Batch(normalise(pixels), chosen.label, chosen.patient)
