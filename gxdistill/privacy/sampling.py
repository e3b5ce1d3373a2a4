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

# The chance that a step draws more than there is room for; over a million steps at epsilon 20, the
# missing ones add less than 1e-9 to delta.
_OVERFLOW = 1e-24
_STREAM = 2**32 - 6  # Folded into a key, for its name.


@flax.struct.dataclass
class PatientBatch:
    """The patches of a Poisson sample of patients, by patient.

    Attributes:
      images: `[N, M, H, W, C]` float32, normalised: M patches of each of N patients.
      targets: `[N, M]` int32, class indices.
      present: `[N]` bool, who was drawn; they come first, and the others only fill up.
    """

    images: jax.Array
    targets: jax.Array
    present: jax.Array


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
