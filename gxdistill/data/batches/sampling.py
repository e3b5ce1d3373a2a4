"""Which patches are drawn, and how often: a class, then a patient of it, then a patch of theirs.

One patient may have hundreds of patches of a class and another a handful: drawn evenly over
patches, the first would be most of what is learned.
"""

from collections.abc import Mapping, Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from gxdistill import _check
from gxdistill.pytrees import Cohort, PatchTable

PATIENTS = ("equal", "patches")

# Chances are whole parts of this many: a float's running sum would lose the small ones.
_PARTS = 2**31 - 1


@flax.struct.dataclass
class Sampler:
    """Patches with their chances; an argument of jitted code.

    A group is what one patient has of one class.

    Attributes:
      table: patches in order of class and patient, columns `[M]` int32.
      shares: `[K]` float32, running sum of the classes' shares of a batch, up to 1.
      lows: `[K]` int32, where a class begins in `ends`.
      highs: `[K]` int32, where it ends.
      ends: `[G]` int32, running sum of the groups' chances, in parts.
      starts: `[G]` int32, first row of each group.
      counts: `[G]` int32, rows of each group.
    """

    table: PatchTable
    shares: jax.Array
    lows: jax.Array
    highs: jax.Array
    ends: jax.Array
    starts: jax.Array
    counts: jax.Array


def sampler(
    cohort: Cohort,
    table: PatchTable,
    *,
    classes: Sequence[float] = (),
    sites: Mapping[str, float] | None = None,
    patients: str = "equal",
    drawn: np.ndarray | None = None,
) -> Sampler:
    """Prepares drawing from the patches of a cohort.

    Args:
      cohort: whose patients and sites they are.
      table: the patches.
      classes: weight of each class in a batch; none gives all the same. A class that has no patch
        leaves its share to the others.
      sites: weight of each site in the draws of a class; none leaves it to its patients.
      patients: within a class and site, "equal" draws each patient as often, "patches" each patch.
      drawn: which patients are drawn at all, by their sorted ids, `[P]` bool; None draws everyone.
        The sampler has the same shapes whoever is.

    Returns:
      The sampler, on the device.

    Raises:
      ValueError: weights are negative or all zero, of another number than the classes, or a site
        has none.
    """
    _check.one_of("patients", patients, PATIENTS)
    table = table.select(np.lexsort((table.patient, table.label)))
    begins = np.r_[True, (np.diff(table.label) != 0) | (np.diff(table.patient) != 0)]
    starts = np.flatnonzero(begins)
    counts = np.diff(np.r_[starts, len(begins)])
    label, patient = table.label[starts], table.patient[starts]

    weight = np.ones(len(starts)) if patients == "equal" else counts.astype(float)
    if drawn is not None:
        weight *= drawn[patient]
    if sites:
        present, site = _sites(cohort)
        names = present.tolist()
        weight = _in_proportion(weight, label * len(names) + site[patient])
        weight *= _weights("sites", [sites.get(name) for name in names], names)[site[patient]]
    K = len(cohort.class_names)
    share = _weights("classes", classes or (1.0,) * K, cohort.class_names)
    share = share * (np.bincount(label, weight, K) > 0)
    if not share.sum():
        raise ValueError("`classes` and `sites` leave no patch any chance. Raise a weight.")
    ends = np.cumsum(_in_proportion(weight, label) * (share / share.sum())[label])
    ends = np.rint(ends.clip(max=1) * _PARTS).astype(np.int32)
    highs = np.r_[0, ends][np.searchsorted(label, np.arange(K), side="right")]
    columns = (np.cumsum(share) / share.sum(), np.r_[0, highs[:-1]], highs, ends, starts, counts)
    dtypes = (np.float32, *(np.int32,) * 5)
    device = (jnp.asarray(column, dtype) for column, dtype in zip(columns, dtypes, strict=True))
    return Sampler(PatchTable(*map(jnp.asarray, table)), *device)  # type: ignore[arg-type]


def draw_rows(sampler: Sampler, key: jax.Array, batch: int) -> jax.Array:
    """Draws patches with replacement; jit-able.

    Args:
      sampler: from `sampler`.
      key: typed PRNG key.
      batch: N, patches; of each class its share of N, to the nearest, the same in every batch.

    Returns:
      Rows of `sampler.table`, `[N]` int32, by turns of the classes.
    """
    classes = _turns(sampler.shares, batch)
    # One call for all bits: a compiled generator takes more memory than what it draws.
    group_bits, row_bits = jax.random.bits(key, (2, batch), jnp.uint32)
    low = sampler.lows[classes]
    part = low + _below(group_bits, sampler.highs[classes] - low)
    group = jnp.searchsorted(sampler.ends, part, side="right")
    return sampler.starts[group] + _below(row_bits, sampler.counts[group])


def _below(bits: jax.Array, bound: jax.Array) -> jax.Array:
    """Scales 32 random bits to an integer from 0 to below `bound`: the product's upper half."""
    upper, lower = bits >> 16, bits & 0xFFFF
    bound = bound.astype(jnp.uint32)
    bound_upper, bound_lower = bound >> 16, bound & 0xFFFF
    middle = upper * bound_lower + (lower * bound_lower >> 16)
    carried = lower * bound_upper + (middle & 0xFFFF)
    return (upper * bound_upper + (middle >> 16) + (carried >> 16)).astype(jnp.int32)


def _turns(shares: jax.Array, batch: int) -> jax.Array:
    place = jnp.arange(batch)
    # A little above the whole number, so that no rounding decides where one class meets the next.
    classes = jnp.searchsorted(shares, (place + 0.01) / batch, side="right")
    first = jnp.searchsorted(classes, classes)
    count = jnp.searchsorted(classes, classes, side="right") - first
    return classes[jnp.argsort((place - first + 0.5) / count)]  # stable


def _sites(cohort: Cohort) -> tuple[np.ndarray, np.ndarray]:
    """Names the sites, and gives the index of each patient's: the first by name where several."""
    names, site = np.unique(cohort.sites, return_inverse=True)
    ids, patient = np.unique(cohort.patients, return_inverse=True)
    first = np.full(len(ids), len(names))
    np.minimum.at(first, patient, site)
    return names, first


def _in_proportion(weight: np.ndarray, kind: np.ndarray) -> np.ndarray:
    """Scales weights so that those of one kind add up to 1; kinds of no weight keep it."""
    sums = np.bincount(kind, weight)
    return weight / np.where(sums > 0, sums, 1)[kind]


def _weights(name: str, values: Sequence[float | None], of: Sequence[str]) -> np.ndarray:
    if len(values) != len(of) or None in values:
        raise ValueError(
            f"`{name}` has no weight for each of {', '.join(of)}. Give one for each, or none."
        )
    weights = np.asarray(values, float)
    if not (np.isfinite(weights) & (weights >= 0)).all():
        raise ValueError(f"`{name}` holds {values}; weights must be finite and not negative.")
    return weights
