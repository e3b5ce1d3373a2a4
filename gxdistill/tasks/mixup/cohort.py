"""The volumes of a run: the public pool, private training patients, test patients."""

import dataclasses
from functools import cached_property
from itertools import repeat
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from gxdistill.data import volumes
from gxdistill.data.volumes import Volumes
from gxdistill.errors import UserError
from gxdistill.jobs.problem import BatchSource
from gxdistill.pytrees import Batch


@dataclasses.dataclass(frozen=True)
class MixupCohort:
    """What a run is trained and measured on.

    Attributes:
      config: of the run.
    """

    config: ml_collections.ConfigDict

    @cached_property
    def volumes(self) -> Volumes:
        """All volumes that the run may see.

        Raises:
          UserError: they cannot be read.
        """
        mixup = self.config.mixup
        if mixup.data == "volumes":
            whole = volumes.read(Path(mixup.path), tuple(mixup.classes))
        else:
            drawn = volumes.phantoms(mixup.patients, mixup.size, self.config.seed)
            whole = drawn._replace(class_names=tuple(mixup.classes))
        return hold_out(whole) if mixup.measured_on == "training" else whole

    @cached_property
    def pool(self) -> Volumes:
        """Training patients that are public, drawn by the seed."""
        return self.volumes.select(self._parts[0])

    @cached_property
    def private(self) -> Volumes:
        """The other training patients."""
        return self.volumes.select(self._parts[1])

    @cached_property
    def test(self) -> Volumes:
        """The test patients."""
        return self.volumes.select(np.flatnonzero(self.volumes.is_test))

    @cached_property
    def _parts(self) -> tuple[np.ndarray, np.ndarray]:
        train = np.flatnonzero(~self.volumes.is_test)
        count = self.config.mixup.pool
        if not 0 < count < len(train):
            raise UserError(
                f"mixup.pool is {count}; of {len(train)} training patients some must stay private. "
                f"Lower it."
            )
        order = np.random.default_rng(self.config.seed).permutation(train)
        return np.sort(order[:count]), np.sort(order[count:])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of a slice, `(H, W, 1)`."""
        return (*self.volumes.images.shape[2:], 1)

    def pairs(self, count: int, pool: Volumes) -> BatchSource:
        """Makes the source of batches of `count` pairs: targets first, then their references.

        A private patient and its reference, of `pool`, are the same slice of two volumes.
        """
        private = self.private

        def draw(feed: Any, key: jax.Array) -> Batch:
            keys = jax.random.split(key, 3)
            images, labels, pool_images, pool_labels = feed
            at = jax.random.randint(keys[0], (count,), 0, images.shape[1])
            rows = jax.random.randint(keys[1], (count,), 0, images.shape[0])
            others = jax.random.randint(keys[2], (count,), 0, pool_images.shape[0])
            pixels = jnp.concatenate([images[rows, at], pool_images[others, at]])
            targets = jnp.concatenate([labels[rows, at], pool_labels[others, at]])
            return Batch(to_input(pixels), targets.astype(jnp.int32), rows)

        feed = (private.images, private.labels, pool.images, pool.labels)
        return BatchSource(draw, lambda *_: repeat(feed), reusable=True)

    def singles(self, count: int) -> BatchSource:
        """Makes the source of batches of `count` slices of all training patients."""
        train = self.volumes.select(np.flatnonzero(~self.volumes.is_test))

        def draw(feed: Any, key: jax.Array) -> Batch:
            of_slice, of_row = jax.random.split(key)
            images, labels = feed
            at = jax.random.randint(of_slice, (count,), 0, images.shape[1])
            rows = jax.random.randint(of_row, (count,), 0, images.shape[0])
            return Batch(to_input(images[rows, at]), labels[rows, at].astype(jnp.int32), rows)

        return BatchSource(draw, lambda *_: repeat((train.images, train.labels)), reusable=True)


def hold_out(whole: Volumes) -> Volumes:
    """Leaves the test patients out, and has training patients stand for them.

    They are as many, or half of the training patients where these are fewer than twice as many; all
    settings that are compared on them are compared on the same.
    """
    train = whole.select(np.flatnonzero(~whole.is_test))
    count = min(int(whole.is_test.sum()), len(train.is_test) // 2)
    is_test = np.zeros(len(train.is_test), bool)
    is_test[np.random.default_rng(0).permutation(len(is_test))[:count]] = True
    return train._replace(is_test=is_test)


def to_input(pixels: Any) -> jax.Array:
    """Maps grey levels `[N, H, W]` uint8 to what networks read, `[N, H, W, 1]` from 0 to 1."""
    return jnp.asarray(pixels).astype(jnp.float32)[..., None] / 255
