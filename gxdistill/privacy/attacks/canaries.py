"""Patients that nobody is: planted into shadow cohorts, because a recipe would betray them first.

Whether a canary takes part is a fair coin of its own, so that guesses at the coins bound epsilon
with no assumption on the patients.
"""

import dataclasses
from functools import partial

import numpy as np

from gxdistill.privacy.attacks import scores
from gxdistill.privacy.attacks.membership import lira
from gxdistill.pytrees import Cohort

SINGLE = ("mislabelled", "outlier")  # Kinds of one id each.
KINDS = (*SINGLE, "duplicated")
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

    first = cohorts[0]
    return Cohort(
        images=joined("images"),
        masks=None if first.masks is None else joined("masks"),
        labels=joined("labels"),
        patients=joined("patients"),
        sites=joined("sites"),
        splits=joined("splits"),
        names=joined("names"),
        class_names=first.class_names,
    )


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


def ratios(statistics: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Weighs the canaries' coins in the later half of the runs by what the earlier half tells.

    Were each run weighed by all others, a coin would weigh on the guesses at others, which the
    bound on epsilon does not allow: noise exceeded it twice as often as it may.

    Args:
      statistics: of C canaries of one kind in K runs, `[K, C]`, see `membership`; K at least 2.
      members: their coins, `[K, C]` bool.

    Returns:
      LiRA's log likelihood ratios of runs `K // 2` and on, `[K - K // 2, C]`; 0 where the earlier
      coins all fell on one side.
    """
    half = len(statistics) // 2
    known = members[:half]
    if known.all() or not known.any():
        return np.zeros(statistics[half:].shape)
    return np.stack([lira(row, statistics[:half], known) for row in statistics[half:]])


def count(
    told: np.ndarray, members: np.ndarray, *, delta: float = 0.0, level: float = scores.LEVEL
) -> Guesses:
    """Guesses each coin by the sign of its ratio, a threshold that is fixed in advance.

    Args:
      told: from `ratios`.
      members: their coins, of the same shape, bool.
      delta: of the guarantee that is looked at.
      level: chance that the bound holds.
    """
    guessed = told != 0
    right = int(((told > 0) == members)[guessed].sum())
    guesses, coins = int(guessed.sum()), members.size
    bound = partial(scores.epsilon_of_guesses, trials=coins, delta=delta, level=level)
    return Guesses(
        right,
        guesses,
        coins,
        bound(right, guesses),
        bound(coins, coins),
        scores.clopper_pearson(right, guesses, level) if guesses else scores.Estimate(0.5, 0, 1),
    )
