"""What the attacks look at: each patient under each run, a patient's patches at a time."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gxdistill.data.batches.resident import Normalisation
from gxdistill.privacy.attacks import reconstruction
from gxdistill.pytrees import Cohort, Distilled, Network, Params, PatchTable
from gxdistill.runtime.console import Log, Progress
from gxdistill.tasks.audit.shadowing import Pool

PATCHES = 64  # Of a patient that networks see, at most: evenly over classes and places.
MANY_PATCHES = 512  # Of a patient that are compared in pixels: a copy must not be missed.
IMAGES = 100  # Distilled ones whose nearest real patches are looked for, at most.
_NEAREST = 1e-2  # Distances below it are those of a copy, for float32 tells no more.


class Chosen(NamedTuple):
    """Patches of one patient; of fewer than were asked for the first one is repeated.

    Attributes:
      rows: of the patch table, `[Q]`.
      weights: so that each class weighs the same, `[Q]`, sum 1; 0 of what is repeated.
      record: which of two parts of the patient a patch is of, 0 or 1, `[Q]`; all 0 where there is
        but one.
    """

    rows: np.ndarray
    weights: np.ndarray
    record: np.ndarray


class Measured(NamedTuple):
    """Statistics of P patients: under the package, first, and K shadows; and of the package.

    Attributes:
      likelihood: mean log likelihood of the true class, `[1 + K, P]`. Such a mean is near to
        Gaussian as it is: logits, as are taken of single examples, would be ruled by those patches
        that every network is sure of.
      near: minus the log distance of the nearest distilled image, `[1 + K, P]`.
      distances: by measure, of m distilled images to each patient, `[m, P]`.
      nearest: row of the patch table that is nearest in pixels, `[m, P]`.
      records: distances in pixels of each patient's two records, `[2, P, m]`; NaN of patients with
        one.
      guesses: the label that the package's networks give a patient; -1 for none, `[P]`.
      shown: which distilled images these m are, `[m]`.
    """

    likelihood: np.ndarray
    near: np.ndarray
    distances: dict[str, np.ndarray]
    nearest: np.ndarray
    records: np.ndarray
    guesses: np.ndarray
    shown: np.ndarray


def _records(table: PatchTable, rows: np.ndarray, size: int) -> np.ndarray:
    """Parts a patient's patches: by image, or upper from lower; -1 of what reaches into both."""
    images = np.unique(table.image[rows])
    if len(images) > 1:
        return np.isin(table.image[rows], images[len(images) // 2 :]).astype(int)
    top = table.row[rows]
    middle = (top.min() + top.max() + size) / 2
    part = np.where(top + size <= middle, 0, np.where(top >= middle, 1, -1))
    return part if {0, 1} <= set(part.tolist()) else np.zeros(len(rows), int)


def choose_patches(table: PatchTable, rows: np.ndarray, size: int, count: int) -> Chosen:
    """Chooses patches of one patient, as many of each record, evenly over classes and places.

    Args:
      table: the patches.
      rows: those of the patient, at least one.
      size: side of a patch in pixels.
      count: Q, even.
    """
    part = _records(table, rows, size)
    most = count // len(np.unique(part[part >= 0]))
    kept = []
    for record in np.unique(part[part >= 0]):
        there = np.flatnonzero(part == record)
        there = there[np.argsort(table.label[rows[there]], kind="stable")]
        kept.append(there[_evenly(len(there), most)])
    index = np.concatenate(kept)
    labels = table.label[rows[index]]
    weights = 1 / (np.bincount(labels)[labels] * len(np.unique(labels)))
    missing = count - len(index)
    return Chosen(
        np.r_[rows[index], np.repeat(rows[index[:1]], missing)],
        np.r_[weights, np.zeros(missing)],
        np.r_[part[index], np.repeat(part[index[:1]], missing)],
    )


def _evenly(count: int, most: int) -> np.ndarray:
    """Chooses `most` of `count` places at even steps; all where there are no more."""
    return np.arange(count) if count <= most else np.arange(most) * count // most


def cut(cohort: Cohort, table: PatchTable, rows: np.ndarray, size: int) -> np.ndarray:
    """Cuts patches out of their images, `[n, size, size, C]` uint8."""
    where = zip(table.image[rows], table.row[rows], table.col[rows], strict=True)
    return np.stack([cohort.images[i][r : r + size, c : c + size] for i, r, c in where])


@partial(jax.jit, static_argnames=("network",))
def _under_each_run(
    network: Network,
    params: Params,
    sets: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    weights: jax.Array,
    many: jax.Array,
) -> tuple[jax.Array, ...]:
    """Likelihood and nearness of one patient under each run, `[1 + K]` each."""

    def of_run(run: tuple[Params, jax.Array]) -> tuple[jax.Array, ...]:
        weights_of_networks, distilled = run
        logits = jax.lax.map(lambda p: network.apply(p, images), weights_of_networks)
        logs = jax.nn.log_softmax(logits)
        told = jnp.take_along_axis(logs, labels[None, :, None], axis=-1)[..., 0]
        likelihood = told.mean(axis=0) @ weights
        near = reconstruction.in_pixels(distilled, many).min()
        return likelihood, -jnp.log(jnp.maximum(near, _NEAREST))

    return jax.lax.map(of_run, (params, sets))


@partial(jax.jit, static_argnames=("network",))
def _under_package(
    network: Network,
    params: Params,
    distilled: jax.Array,
    images: jax.Array,
    many: jax.Array,
    record: jax.Array,
) -> tuple[dict[str, jax.Array], jax.Array, jax.Array, jax.Array]:
    """Distances by measure, the nearest patch, distances of both records, log probabilities."""
    pixels = reconstruction.in_pixels(distilled, many)
    apart = {
        "pixels": pixels,
        "structure": reconstruction.in_structure(distilled, images),
        "features": reconstruction.in_features(distilled, images),
    }
    records = jnp.stack([jnp.where(record == part, pixels, jnp.inf).min(axis=1) for part in (0, 1)])
    logits = jax.lax.map(lambda p: jax.nn.log_softmax(network.apply(p, images)), params)
    nearest = {name: values.min(axis=1) for name, values in apart.items()}
    return nearest, pixels.argmin(axis=1), records, logits.mean(axis=0)


def _guess(logs: np.ndarray, labels: np.ndarray, weights: np.ndarray, classes: int) -> int:
    """The image label that relevant patches speak for; -1 where the patient has none.

    An attacker who sees the image sees which patches show the organ.
    """
    offset = logs.shape[-1] - classes
    relevant = (labels >= offset) * (weights > 0)
    if not relevant.any():
        return -1
    return int((relevant @ logs[:, offset:]).argmax())


def measure(
    pool: Pool,
    patients: np.ndarray,
    network: Network,
    params: Params,
    runs: Sequence[Distilled],
    *,
    size: int,
    normalise: Normalisation,
    log: Log,
) -> Measured:
    """Looks at patients under the package and its shadows.

    Args:
      pool: whose they are.
      patients: numbers of those to look at, `[P]`.
      network: that was trained.
      params: weights of R networks for each run, each leaf with leading axes 1 + K and R.
      runs: the package's distilled data, then those of K shadows.
      size: side of a patch in pixels.
      normalise: makes pixels the network's input.
      log: told the progress.
    """
    first = runs[0].images.reshape(-1, *runs[0].images.shape[2:])
    shown = _evenly(len(first), IMAGES)
    sets = jnp.stack([jnp.asarray(run.images).reshape(first.shape) for run in runs])
    target = jax.tree.map(lambda leaf: leaf[0], params)
    order = np.argsort(pool.table.patient, kind="stable")
    ends = np.searchsorted(pool.table.patient[order], np.arange(len(pool.members) + 1))
    classes = len(pool.cohort.label_names)
    largest = int(np.diff(ends)[patients].max())
    counts = [min(most, largest + largest % 2) for most in (PATCHES, MANY_PATCHES)]

    def each() -> Iterator[tuple]:
        clock = Progress(log, "measuring patients")
        for i, patient in enumerate(patients):
            rows = order[ends[patient] : ends[patient + 1]]
            few, many = (choose_patches(pool.table, rows, size, count) for count in counts)
            images, all_images = (
                normalise(jnp.asarray(cut(pool.cohort, pool.table, chosen.rows, size)))
                for chosen in (few, many)
            )
            labels, weights = pool.table.label[few.rows], few.weights.astype(np.float32)
            runs = _under_each_run(
                network, params, sets, images, jnp.asarray(labels), weights, all_images
            )
            outcome = _under_package(
                network, target, sets[0][shown], images, all_images, many.record
            )
            nearest, place, records, logs = jax.tree.map(np.asarray, outcome)
            guess = _guess(logs, labels, weights, classes)
            yield *map(np.asarray, runs), nearest, many.rows[place], records, guess
            clock(i + 1, len(patients))

    likelihood, near, nearest, place, records, guesses = zip(*each(), strict=True)
    both = np.stack(records, axis=1)
    both[~np.isfinite(both)] = np.nan
    return Measured(
        likelihood=np.stack(likelihood, axis=1),
        near=np.stack(near, axis=1),
        distances={name: np.stack([n[name] for n in nearest], axis=1) for name in nearest[0]},
        nearest=np.stack(place, axis=1),
        records=both,
        guesses=np.array(guesses),
        shown=shown,
    )
