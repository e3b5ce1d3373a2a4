"""Patients that nobody is: planted into shadow cohorts, because a recipe would betray them first.

Whether a canary takes part is a fair coin of its own, so that guesses at the coins bound epsilon
with no assumption on the patients.
"""

import dataclasses

import numpy as np

from gxdistill.privacy.attacks import scores
from gxdistill.privacy.attacks.membership import each_left_out, lira
from gxdistill.pytrees import Cohort

KINDS = ("mislabelled", "outlier", "duplicated")
_NAME = "canary"


def plant(
    cohort: Cohort, rng: np.random.Generator, *, each: int, copies: int = 4
) -> tuple[Cohort, np.ndarray]:
    """Makes canary patients of real ones, none of whom they are: all images are mirrored.

    "mislabelled" has the next label, "outlier" is a negative, "duplicated" is there under several
    ids, as a patient is whose follow-ups were taken for other people.

    Args:
      cohort: whose patients they are made of, drawn without replacement.
      rng: draws them.
      each: number of canaries of each kind.
      copies: ids of a duplicated one.

    Returns:
      The canaries' cohort, and of each of its patients, by sorted id, the number of the canary.

    Raises:
      ValueError: there are fewer patients than canaries.
    """
    patients = np.unique(cohort.patients)
    if len(KINDS) * each > len(patients):
        raise ValueError(
            f"{len(KINDS) * each} canaries cannot be made of {len(patients)} patients. Ask for "
            f"fewer."
        )
    drawn = rng.choice(patients, len(KINDS) * each, replace=False)
    parts, canary = [], []
    for number, patient in enumerate(drawn):
        kind = KINDS[number // each]
        changed = _change(cohort.select(cohort.patients == patient), kind)
        for copy in range(copies if kind == "duplicated" else 1):
            name = f"{_NAME}-{number:04d}-{copy:02d}"
            ids = np.full(len(changed.labels), name)
            parts.append(dataclasses.replace(changed, patients=ids, names=ids))
            canary.append(number)
    return concatenate(parts), np.array(canary)


def _change(cohort: Cohort, kind: str) -> Cohort:
    images, labels = np.asarray(cohort.images)[:, :, ::-1], cohort.labels
    if kind == "mislabelled":
        labels = ((labels + 1) % len(cohort.label_names)).astype(labels.dtype)
    if kind == "outlier":
        images = 255 - images
    masks = None if cohort.masks is None else np.asarray(cohort.masks)[:, :, ::-1]
    return dataclasses.replace(cohort, images=images, masks=masks, labels=labels)


def concatenate(cohorts: list[Cohort]) -> Cohort:
    """Puts cohorts of the same classes and image size together."""

    def joined(field: str) -> np.ndarray:
        return np.concatenate([np.asarray(getattr(cohort, field)) for cohort in cohorts])

    fields = ("images", "labels", "patients", "sites", "splits", "names")
    first = cohorts[0]
    masks = None if first.masks is None else joined("masks")
    return dataclasses.replace(first, masks=masks, **{field: joined(field) for field in fields})


@dataclasses.dataclass(frozen=True)
class Guesses:
    """What an attack made of the canaries' coins.

    Attributes:
      right: guesses that were.
      guesses: in all; where a likelihood ratio tells nothing, none is made.
      coins: in all.
      epsilon: lower bound, see `scores.epsilon_of_guesses`.
      ceiling: the bound if all coins had been guessed right.
      share: of right guesses, with its interval, as if they were independent.
    """

    right: int
    guesses: int
    coins: int
    epsilon: float
    ceiling: float
    share: scores.Estimate


def guess(
    statistics: np.ndarray, members: np.ndarray, *, delta: float = 0.0, level: float = scores.LEVEL
) -> Guesses:
    """Guesses each canary's coin in each run by the other runs, at a threshold fixed in advance.

    A coin is guessed by the sign of LiRA's log likelihood ratio.

    Args:
      statistics: of C canaries in K runs, `[K, C]`, see `membership`.
      members: their coins, `[K, C]` bool.
      delta: of the guarantee that is looked at.
      level: chance that the bound holds.
    """
    ratios = each_left_out(lira, statistics, members)
    guessed = ratios != 0
    right = int(((ratios > 0) == members)[guessed].sum())
    guesses, coins = int(guessed.sum()), members.size
    common = {"trials": coins, "delta": delta, "level": level}
    return Guesses(
        right,
        guesses,
        coins,
        scores.epsilon_of_guesses(right, guesses, **common),
        scores.epsilon_of_guesses(coins, coins, **common),
        scores.clopper_pearson(right, guesses, level) if guesses else scores.Estimate(0.5, 0, 1),
    )
