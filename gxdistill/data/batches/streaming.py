"""Real batches of a cohort that does not fit on the device: few images in memory at a time."""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gxdistill import _check
from gxdistill.data.batches.sampling import Sampler, draw_rows
from gxdistill.errors import UserError
from gxdistill.pytrees import Cohort, PatchTable

_AHEAD = 1  # Batches made while the device works on another.
_NEVER = 2**31 - 1


class Pixels(NamedTuple):
    """Patches as they were read.

    Attributes:
      images: `[N, size, size, C]` uint8.
      labels: `[N]` int32 class indices.
      patients: `[N]` int32 patient indices.
    """

    images: np.ndarray | jax.Array
    labels: np.ndarray | jax.Array
    patients: np.ndarray | jax.Array


class Streaming:
    """Draws what a resident feed draws, an epoch at a time and in another order.

    An epoch has as many draws as there are patches. Its draws are those that `sampling.draw_rows`
    makes with the keys of its steps; they are then dealt anew to its batches, so that each image is
    needed for a short while only. Every batch keeps its number of patches of each class. A batch is
    a function of key and step alone: whoever goes on from a step needs nothing else.
    """

    def __init__(
        self,
        cohort: Cohort,
        sampler: Sampler,
        *,
        size: int,
        batch: int,
        cache_mb: int = 32,
    ):
        """Opens nothing yet.

        Args:
          cohort: the images; a `stack.Stack` is read image by image.
          sampler: of their patches.
          size: side of a patch in pixels.
          batch: N, patches of a batch.
          cache_mb: MiB of images to keep; the more, the better a batch is mixed.

        Raises:
          ValueError: a number is out of range.
        """
        _check.positive(size=size, batch=batch, cache_mb=cache_mb)
        self.size, self.batch = size, batch
        self._table = PatchTable(*map(np.asarray, sampler.table))
        self._sampler, self._labels = sampler, cohort.labels
        n = len(cohort.images)
        kept = min(max(2, (cache_mb << 20) * n // cohort.images.nbytes), n)
        self._window = kept / 2  # Classes drift apart by a few images, and the rest is for that.
        self._image = _Latest(cohort.images, kept)
        self._plan = functools.lru_cache(2)(self._make_plan)

    @property
    def steps(self) -> int:
        """Number of batches of an epoch."""
        return -(-len(self._table.image) // self.batch)

    def rows(self, key: jax.Array, step: int) -> np.ndarray:
        """Returns the rows of the sampler's table in the batch of a step, `[N]`.

        Args:
          key: typed PRNG key, of which each step folds its own.
          step: from 0.
        """
        epoch, place = divmod(step, self.steps)
        return self._plan(tuple(jax.random.key_data(key).tolist()), epoch)[place]

    def batches(
        self, key: jax.Array, first: int = 0, places: slice | np.ndarray = slice(None)
    ) -> Iterator[Pixels]:
        """Reads one batch after another, ahead of their use.

        Args:
          key: as for `rows`.
          first: step of the first batch.
          places: the places of a batch that are read, where other processes read the others.

        Returns:
          An endless iterator.

        Raises:
          UserError: grain is not installed.
        """
        try:
            import grain
        except ImportError as error:
            raise UserError(
                "The library grain is not installed. Install it by "
                "`pip install grain array-record`, or set data.feed to 'resident'."
            ) from error
        steps = grain.MapDataset.range(first, _NEVER)
        parts = steps.map(lambda step: self.read(self.rows(key, step)[places]))
        ahead = grain.ReadOptions(num_threads=1, prefetch_buffer_size=_AHEAD)
        return iter(parts.to_iter_dataset(ahead))

    def read(self, rows: np.ndarray) -> Pixels:
        """Reads the patches of some rows of the sampler's table, `[n]`."""
        chosen = self._table.select(rows)
        channels = self._image(int(chosen.image[0])).shape[2]
        pixels = np.empty((len(rows), self.size, self.size, channels), np.uint8)
        for place in np.argsort(chosen.image, kind="stable"):
            image = self._image(int(chosen.image[place]))
            top, left = chosen.row[place], chosen.col[place]
            pixels[place] = image[top : top + self.size, left : left + self.size]
        return Pixels(pixels, chosen.label, chosen.patient)

    def _make_plan(self, key_data: tuple[int, ...], epoch: int) -> np.ndarray:
        key = jax.random.wrap_key_data(jnp.array(key_data, jnp.uint32))
        first = jnp.int32(epoch * self.steps)
        rows = np.asarray(_draw_epoch(self._sampler, key, first, self.steps, self.batch))
        rng = np.random.default_rng([*key_data, epoch])
        return self._dealt_anew(rows, rng)

    def _dealt_anew(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Deals `[L, N]` rows such that each image is used within a window of images."""
        L, N = rows.shape
        drawn = self._table.select(rows.ravel())
        n = len(self._labels)  # The last go round to the first, so that these are mixed, too.
        when = (self._turns(rng)[drawn.image] + self._window * rng.random(L * N)) % n
        sorted_rows = rows.ravel()[np.lexsort((when, drawn.label))]
        counts = np.bincount(self._table.label[rows[0]])  # as in every batch
        parts = np.split(sorted_rows, np.cumsum(L * counts)[:-1])
        dealt = np.concatenate([part.reshape(L, -1) for part in parts], axis=1)
        # By image, so that the parts of the processes need few images in common.
        order = np.argsort(self._table.image[dealt], axis=1, kind="stable")
        return np.take_along_axis(dealt, order, axis=1)

    def _turns(self, rng: np.random.Generator) -> np.ndarray:
        """Draws when each image has its turn, so that labels advance side by side, `[n_images]`."""
        n = len(self._labels)
        turns = np.empty(n)
        for label in np.unique(self._labels):
            of_label = np.flatnonzero(self._labels == label)
            turns[of_label] = (rng.permutation(len(of_label)) + 0.5) * n / len(of_label)
        return turns


class _Latest:
    """Keeps the images that were asked for last.

    In one block of memory, made once: between the batches that come and go, images one by one would
    leave gaps of which neither is served.
    """

    def __init__(self, images: np.ndarray, count: int):
        self._images, self._count = images, count
        self._places: dict[int, int] = {}  # Of each image in the block, the latest last.

    @functools.cached_property
    def _block(self) -> np.ndarray:
        return np.empty((self._count, *self._images.shape[1:]), self._images.dtype)

    def __call__(self, row: int) -> np.ndarray:
        """Returns an image, which stays as it is until others are asked for."""
        if row in self._places:
            place = self._places.pop(row)
        else:
            image, place = self._images[row], len(self._places)
            if place == self._count:
                place = self._places.pop(next(iter(self._places)))
            self._block[place] = image
        self._places[row] = place
        return self._block[place]


@functools.partial(jax.jit, static_argnums=(3, 4))
def _draw_epoch(
    sampler: Sampler, key: jax.Array, first: jax.Array, steps: int, batch: int
) -> jax.Array:
    keys = jax.vmap(lambda step: jax.random.fold_in(key, step))(first + jnp.arange(steps))
    return jax.vmap(lambda key: draw_rows(sampler, key, batch))(keys)
