"""One package of several: what hospitals distilled alone, trained on together.

One-shot federated distillation, as Zhou et al. 2020, https://arxiv.org/abs/2009.07999: sites send
their distilled sets once, and a receiver trains on all of them, in each epoch on one site's batches
after the other's.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gxdistill.errors import UserError
from gxdistill.package import precision
from gxdistill.package.content import Package
from gxdistill.package.fields import (
    CohortCounts,
    Decision,
    Distillation,
    LedgerRecord,
    Manifest,
    Reading,
    SplitCounts,
    Splits,
    to_json,
)
from gxdistill.pytrees import Distilled

MOST = 64  # Packages of one merge; each is bounded where it is read.

# What must be the same, by its name in the manifest.
_SAME = (
    *("network", "init", "patch", "image_normalisation", "class_names"),
    *("distillation.epochs", "distillation.images_per_step", "distillation.label_rule"),
    *("distillation.loss", "distillation.inner", "distillation.augmentations"),
)
_STARTS = ("noise", "statistics", "mixture", "real")  # From what tells least to what tells most.


def merge(packages: Sequence[Package], name: str) -> Package:
    """Merges packages of one network and one kind of patches.

    Each epoch of a replay goes through the batches of the first, then of the second, and so on. The
    images of the others are put into the units of the first. Nothing was measured of the whole: no
    results, no proof; the threshold is the mean of theirs, and a receiver does well to calibrate.

    Args:
      packages: from `load`, two at least.
      name: of the whole, for people.

    Returns:
      The package, fit to be saved; no signature is kept.

    Raises:
      UserError: they are too few or too many, or do not fit each other.
    """
    if not 2 <= len(packages) <= MOST:
        raise UserError(f"{len(packages)} packages were named; 2 to {MOST} can be merged.")
    first, *others = packages
    for other in others:
        _check_same(first, other)
    kinds = {package.manifest.precision for package in packages}
    kind = kinds.pop() if len(kinds) == 1 else "float32"
    images = np.concatenate([_in_units_of(first, package) for package in packages])
    images, grid = precision.rounded(images, kind)
    labels = np.concatenate([np.asarray(package.distilled.labels) for package in packages])
    epochs = first.manifest.distillation.epochs
    rates = _rates([package.distilled for package in packages], epochs)
    distilled = Distilled(*map(jnp.asarray, (images, labels, rates)))
    return Package(distilled, _manifest(packages, name, kind), first.start, grid=grid)


def _check_same(first: Package, other: Package) -> None:
    tables = to_json(first.manifest), to_json(other.manifest)
    names = [table["name"] for table in tables]
    for field in _SAME:
        values = [_at(table, field) for table in tables]
        if values[0] != values[1]:
            raise UserError(
                f"{names[0]} and {names[1]} do not fit: {field} is {values[0]!r} and {values[1]!r}."
                f" Distil both with the same settings."
            )
    if not _equal(first.start, other.start):
        raise UserError(
            f"{names[0]} and {names[1]} were distilled for different initial weights. Distil both "
            f"with the same seed, or for random ones."
        )
    if (first.manifest.ledger is None) != (other.manifest.ledger is None):
        raise UserError(
            f"One of {names[0]} and {names[1]} has a ledger and the other none: nothing could be "
            f"guaranteed of the whole. Merge packages that both have one, or none."
        )


def _at(table: Any, field: str) -> Any:
    for part in field.split("."):
        table = table[part]
    return table


def _equal(first: Any, second: Any) -> bool:
    ours, theirs = (dict(jax.tree_util.tree_leaves_with_path(tree)) for tree in (first, second))
    return ours.keys() == theirs.keys() and all(np.array_equal(ours[k], theirs[k]) for k in ours)


def _in_units_of(first: Package, package: Package) -> np.ndarray:
    """Puts images into the units of the first: as if its normalisation had made them."""
    images = np.asarray(package.distilled.images)
    theirs, ours = package.manifest.normalisation, first.manifest.normalisation
    if theirs == ours:
        return images
    mean, std, to_mean, to_std = (np.asarray(values, np.float32) for values in (*theirs, *ours))
    return (images * std + mean - to_mean) / to_std


def _rates(sets: Sequence[Distilled], epochs: int) -> np.ndarray:
    by_epoch = [np.asarray(data.log_lr).reshape(epochs, -1) for data in sets]
    return np.concatenate(by_epoch, axis=1).ravel()


def _manifest(packages: Sequence[Package], name: str, kind: str) -> Manifest:
    manifests = [package.manifest for package in packages]
    first = manifests[0]
    loops = [manifest.distillation for manifest in manifests]
    names = ", ".join(manifest.name for manifest in manifests)
    return dataclasses.replace(
        first,
        name=name,
        purpose=_alike([manifest.purpose for manifest in manifests]),
        licence=_alike([manifest.licence for manifest in manifests]),
        privacy=_alike([manifest.privacy for manifest in manifests]),
        cohort=_cohort([manifest.cohort for manifest in manifests]),
        reading=_reading(manifests),
        decision=_decision([manifest.decision for manifest in manifests]),
        likeness=None,
        results={},
        proof=None,
        ledger=_ledger([manifest.ledger for manifest in manifests]),
        precision=kind,
        distillation=Distillation(
            steps=sum(loop.steps for loop in loops),
            epochs=loops[0].epochs,
            images_per_step=loops[0].images_per_step,
            label_rule=loops[0].label_rule,
            loss=loops[0].loss,
            inner=loops[0].inner,
            augmentations=loops[0].augmentations,
            started_from=max((loop.started_from for loop in loops), key=_STARTS.index),
            outer_steps=max(loop.outer_steps for loop in loops),
            settings={"merged": names},
        ),
    )


def _alike(texts: Sequence[str]) -> str:
    """Says each text once."""
    return " | ".join(dict.fromkeys(texts))


def _cohort(cohorts: Sequence[CohortCounts | None]) -> CohortCounts | None:
    known = [cohort for cohort in cohorts if cohort is not None]
    if len(known) < len(cohorts):
        return None

    def added(splits: Sequence[SplitCounts]) -> SplitCounts:
        labels: dict[str, int] = {}
        for split in splits:
            for label, count in split.labels.items():
                labels[label] = labels.get(label, 0) + count
        images, patients = (
            sum(getattr(s, part) for s in splits) for part in ("images", "patients")
        )
        return SplitCounts(images, patients, labels)

    counts = ("images", "patients", "sites", "quarantined")
    return CohortCounts(
        **{part: sum(getattr(cohort, part) for cohort in known) for part in counts},
        splits=Splits(
            added([cohort.splits.train for cohort in known]),
            added([cohort.splits.test for cohort in known]),
        ),
    )


def _reading(manifests: Sequence[Manifest]) -> Reading | None:
    readings = [manifest.reading for manifest in manifests]
    first = readings[0]
    if first is None or None in readings:
        return None
    bits = sorted({depth for reading in readings if reading for depth in reading.bits})
    same = [dataclasses.replace(reading, bits=()) for reading in readings if reading]
    if any(reading != same[0] for reading in same):
        raise UserError(
            f"{' and '.join(manifest.name for manifest in manifests)} read files in different "
            f"ways. Distil them with the same data.window, data.spacing, data.fit and "
            f"data.burned_in."
        )
    return dataclasses.replace(first, bits=tuple(bits))


def _decision(decisions: Sequence[Decision | None]) -> Decision | None:
    known = [decision for decision in decisions if decision is not None]
    if len(known) < len(decisions) or len({decision.rule for decision in known}) > 1:
        return None
    shares = [decision.share_positive for decision in known]
    stated = [share for share in shares if share is not None]
    return Decision(
        rule=known[0].rule,
        weights=tuple(np.mean([decision.weights for decision in known], axis=0).tolist()),
        tau=float(np.mean([decision.tau for decision in known])),
        share_positive=float(np.mean(stated)) if len(stated) == len(shares) else None,
        networks=max(decision.networks for decision in known),
    )


def _ledger(ledgers: Sequence[LedgerRecord | None]) -> LedgerRecord | None:
    """Composes ledgers as if all were of the same patients, who may have been at both hospitals."""
    known = [ledger for ledger in ledgers if ledger is not None]
    if not known:
        return None
    if len({(ledger.unit, ledger.adjacency) for ledger in known}) > 1:
        raise UserError("The ledgers protect different units. Merge packages of one unit.")
    spent = [ledger.epsilon for ledger in known if ledger.epsilon is not None]
    total = sum(spent) if len(spent) == len(known) else None
    return LedgerRecord(
        unit=known[0].unit,
        adjacency=known[0].adjacency,
        delta=min(sum(ledger.delta for ledger in known), 1 - 1e-9),
        budget=None,
        epsilon=None if total is None or total > 100 else total,
        conversion="basic composition of the merged ledgers",
        events=tuple(event for ledger in known for event in ledger.events),
        uncovered=tuple(dict.fromkeys(what for ledger in known for what in ledger.uncovered)),
    )
