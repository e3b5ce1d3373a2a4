"""Poisson sampling of patients, by which the noise of a step protects better.

Each patient takes part in a step by a coin of its own. A batch that is balanced over classes or
patients, or of a fixed size, is not such a sample, and no theorem of sampling speaks of it.
"""

import dataclasses
import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from gxdistill.data.batches.resident import Normalisation
from gxdistill.patching import gather_patches
from gxdistill.pytrees import PatchTable

# The chance that a step draws more than there is room for; over a million steps at epsilon 20, the
# missing ones add less than 1e-9 to delta.
_OVERFLOW = 1e-24
# Folded into keys: for a key's name, and for what is drawn of a step's patients.
_STREAM, _PATCHES = 2**32 - 6, 2**32 - 8


@flax.struct.dataclass
class PatientBatch:
    """The patches of a Poisson sample of patients, by patient.

    Attributes:
      images: `[N, M, H, W, C]` float32, normalised: M patches of each of N patients.
      targets: `[N, M]` int32, class indices.
      present: `[N]` bool, who was drawn; they come first, and the others only fill up.
      counted: `[N]` bool, who of them has patches.
    """

    images: jax.Array
    targets: jax.Array
    present: jax.Array
    counted: jax.Array


@dataclasses.dataclass(frozen=True)
class Draws:
    """Proof for the ledger that batches are Poisson samples: `PatientSampler.draws` makes it.

    Attributes:
      stream: names the key that the samples were drawn by.
      probability: of a patient to be in a sample.
      first: number of samples that were drawn of the stream before.
      count: number of samples.
    """

    stream: str
    probability: float
    first: int
    count: int


@dataclasses.dataclass(frozen=True)
class PatientSampler:
    """Draws patients, each by a coin of its own.

    Attributes:
      patients: P, number of patients.
      probability: of a patient to be in a sample, above 0 and at most 1.

    Raises:
      ValueError: a number is out of range.
    """

    patients: int
    probability: float

    def __post_init__(self) -> None:
        """Refuses numbers out of range."""
        if self.patients < 1:
            raise ValueError(f"`patients` is {self.patients}; there must be at least 1.")
        if not 0 < self.probability <= 1:
            raise ValueError(
                f"`probability` is {self.probability}; it must be above 0 and at most 1."
            )

    @functools.cached_property
    def capacity(self) -> int:
        """Patients that a step has room for: all, or so many that a chance of 1e-24 is left."""
        from scipy import stats

        most = np.arange(self.patients + 1)
        beyond = stats.binom.logsf(most, self.patients, self.probability)
        return int(most[beyond < np.log(_OVERFLOW)].min(initial=self.patients))

    def draw(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Draws the patients of a step; jit-able.

        Args:
          key: typed PRNG key, the step's own; who knows it knows who was drawn.

        Returns:
          Indices of patients in ascending order, `[capacity]` int32, and which of them are drawn,
          `[capacity]` bool; the others fill up.
        """
        # Compared as whole numbers: a float32 could not tell a chance from its neighbours.
        below = np.uint64(self.probability * 2**32)
        chance = jnp.uint32(min(below, np.uint64(2**32 - 1)))
        bits = jax.random.bits(key, (self.patients,), jnp.uint32)
        takes_part = (bits < chance) | (self.probability == 1)
        (chosen,) = jnp.nonzero(takes_part, size=self.capacity, fill_value=0)
        return chosen.astype(jnp.int32), jnp.arange(self.capacity) < takes_part.sum()

    def draws(self, key: jax.Array, first: int, count: int) -> Draws:
        """Vouches for samples, so that a ledger books what is made of them.

        Args:
          key: typed PRNG key of the run, of which each step's is derived.
          first: step of the first sample, from 0.
          count: number of samples.
        """
        return Draws(stream(key), self.probability, first, count)


def stream(key: jax.Array) -> str:
    """Names a key without telling it: 64 bits drawn by it, in hexadecimal digits."""
    high, low = np.asarray(jax.random.bits(jax.random.fold_in(key, _STREAM), (2,), jnp.uint32))
    return f"{high:08x}{low:08x}"


@flax.struct.dataclass
class PatientFeed:
    """A cohort's images on the device with the patches of each patient; an argument of jitted code.

    A group is what one patient has of one class.

    Attributes:
      images: `[N, H, W, C]` uint8.
      table: patches in order of patient and class, columns `[M]` int32.
      group_starts: `[G]` int32, first row of each group.
      group_counts: `[G]` int32, its rows.
      first_groups: `[P]` int32, first group of each patient.
      groups: `[P]` int32, number of groups; 0 where the patient has no patch, and no part.
    """

    images: jax.Array
    table: PatchTable
    group_starts: jax.Array
    group_counts: jax.Array
    first_groups: jax.Array
    groups: jax.Array


def patient_feed(images: jax.Array, table: PatchTable, patients: int) -> PatientFeed:
    """Prepares drawing from the patches of patients.

    Args:
      images: of the cohort, `[N, H, W, C]` uint8.
      table: its patches, at least one.
      patients: P, number of patients; `table.patient` is below.
    """
    table = table.select(np.lexsort((table.label, table.patient)))
    begins = np.r_[True, (np.diff(table.label) != 0) | (np.diff(table.patient) != 0)]
    starts = np.flatnonzero(begins)
    owner = table.patient[starts]
    columns = (
        starts,
        np.diff(np.r_[starts, len(begins)]),
        np.searchsorted(owner, np.arange(patients)).clip(max=len(starts) - 1),
        np.bincount(owner, minlength=patients),
    )
    device = (jnp.asarray(column, jnp.int32) for column in columns)
    return PatientFeed(images, PatchTable(*map(jnp.asarray, table)), *device)  # type: ignore[arg-type]


def draw_patients(
    feed: PatientFeed,
    key: jax.Array,
    *,
    sampler: PatientSampler,
    patches: int,
    size: int,
    normalise: Normalisation,
) -> PatientBatch:
    """Draws a Poisson sample of patients, and patches of each, with replacement; jit-able.

    Of a patient, each class is drawn as often; what one patient's patches are depends on no other.

    Args:
      feed: from `patient_feed`.
      key: typed PRNG key, the step's own.
      sampler: of the feed's patients.
      patches: M, of each patient.
      size: side of a patch in pixels.
      normalise: applied to the patches; must not be measured on the patients.

    Returns:
      The sample; N is the sampler's capacity.
    """
    chosen, present = sampler.draw(key)
    draws = jax.random.uniform(jax.random.fold_in(key, _PATCHES), (2, len(chosen), patches))

    def below(share: jax.Array, count: jax.Array) -> jax.Array:
        return jnp.minimum((share * count).astype(jnp.int32), jnp.maximum(count - 1, 0))

    group = feed.first_groups[chosen][:, None] + below(draws[0], feed.groups[chosen][:, None])
    row = feed.group_starts[group] + below(draws[1], feed.group_counts[group])
    rows = jax.tree.map(lambda column: column[row.ravel()], feed.table)
    pixels = gather_patches(feed.images, rows.image, rows.row, rows.col, size=size)
    pixels = jax.lax.optimization_barrier(pixels)  # As in `data.batches.resident`.
    images = normalise(pixels).reshape(*row.shape, *pixels.shape[1:])
    counted = present & (feed.groups[chosen] > 0)
    return PatientBatch(images, rows.label.reshape(row.shape), present, counted)
