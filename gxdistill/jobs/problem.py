"""What a method needs to know of a job, and nothing of where its images come from."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax

from gxdistill.distill.meta_gradient import MetaGradient
from gxdistill.package import seeds
from gxdistill.package.seeds import Use
from gxdistill.pytrees import Batch, Network


class BatchSource(NamedTuple):
    """Where the real batches of a loop of steps come from.

    Attributes:
      draw: `(feed, key) -> Batch`, jit-able.
      stream: `(key, first, rows) -> iterator` of the feeds that `draw` takes from step `first` on;
        `key` is the one of which each step folds its own. Of a feed that is not reusable, only some
        rows of the batch may be asked for (an index, all by default).
      reusable: whether one feed serves any number of steps, or just one.
    """

    draw: Callable[[Any, jax.Array], Batch]
    stream: Callable[..., Iterator[Any]]
    reusable: bool


class Sharing(NamedTuple):
    """How sites learn one distilled set together, each from batches of its own patients.

    Attributes:
      meta: makes of a meta-gradient on one batch that of the sites, on what `Problem.batches` draw.
      private: `(after_training, noise) -> after_training`, makes of what builds a private
        meta-gradient with a noise multiplier what builds that of sites which share the noise out.
      patients: makes of a source of samples of all patients one of each site's own in them.
    """

    meta: Callable[[MetaGradient], MetaGradient]
    private: Callable[[Callable[..., MetaGradient], float], Callable[..., MetaGradient]]
    patients: Callable[[BatchSource], BatchSource]


@dataclasses.dataclass(frozen=True)
class Problem:
    """A problem to learn: made of a cohort by a job, and of sizes alone by a plan.

    Attributes:
      shape: of a patch, `[H, W, C]`.
      classes: K.
      network: what is trained.
      seed: of all that is drawn.
      batches: `count -> BatchSource`, of batches of `count` real patches.
      sample: `(split, count, key) -> Batch`, each class as often, of the split "train" or "test".
      devices: that share the steps; None where there is but this process's one.
      card_memory: bytes of a device's memory that JAX may take; None of a CPU.
      sharing: how sites learn it together; None where all patients are in one place.
    """

    shape: tuple[int, int, int]
    classes: int
    network: Network
    seed: int
    batches: Callable[[int], BatchSource]
    sample: Callable[[str, int, jax.Array], Batch]
    devices: tuple[jax.Device, ...] | None = None
    card_memory: int | None = None
    sharing: Sharing | None = None

    def key(self, use: Use) -> jax.Array:
        """Derives the typed PRNG key of one use of randomness."""
        return seeds.key(self.seed, use)
