"""What is measured: recall, sensitivity and specificity, AUC, and how sure of them one may be.

NumPy in float64. Labels of whole images are 0 (negative) and 1 (positive). Sensitivity, specificity
and their harmonic mean (HM) are the three figures of Li et al., https://arxiv.org/abs/2209.14635.
"""

import contextlib
from collections.abc import Callable

import numpy as np

from gxdistill import _check

Statistic = Callable[..., float | np.ndarray]


class UndefinedError(ValueError):
    """The figure asked for does not exist for this data: a class is absent, say."""


def _same_shape(predicted: np.ndarray, labels: np.ndarray) -> None:
    if predicted.shape != labels.shape:
        raise ValueError(
            f"{labels.shape} labels do not fit {predicted.shape} predictions or scores. "
            f"Pass one label for each."
        )


def confusion_matrix(predicted: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts how often each class was taken for each.

    Args:
      predicted: class indices, `[n]` integer.
      labels: true class indices, `[n]` integer.
      num_classes: K.

    Returns:
      Counts, `[K, K]` int64: row = true class, column = predicted class.

    Raises:
      ValueError: the shapes differ, or an index is not among 0 .. K - 1.
    """
    predicted, labels = np.asarray(predicted), np.asarray(labels)
    _same_shape(predicted, labels)
    for name, values in (("predicted", predicted), ("labels", labels)):
        if values.size and (values.min() < 0 or values.max() >= num_classes):
            raise ValueError(
                f"`{name}` holds {values.min()} .. {values.max()}; classes go from 0 to "
                f"{num_classes - 1}. Raise `num_classes`, or leave the others out."
            )
    pairs = labels.astype(np.int64) * num_classes + predicted
    return np.bincount(pairs.ravel(), minlength=num_classes**2).reshape(num_classes, num_classes)


def balanced_accuracy(predicted: np.ndarray, labels: np.ndarray, num_classes: int) -> float:
    """Computes the mean recall over the classes that are present in `labels`.

    Args:
      predicted: class indices, `[n]` integer.
      labels: true class indices, `[n]` integer.
      num_classes: K.

    Returns:
      A share from 0 to 1.

    Raises:
      UndefinedError: there is no label at all.
      ValueError: as `confusion_matrix`.
    """
    counts = confusion_matrix(predicted, labels, num_classes)
    truths = counts.sum(axis=1)
    present = truths > 0
    if not present.any():
        raise UndefinedError("Balanced accuracy of no examples is undefined. Pass at least one.")
    return float(np.mean(np.diag(counts)[present] / truths[present]))


def harmonic_mean(a: float | np.ndarray, b: float | np.ndarray) -> float | np.ndarray:
    """Computes 2 a b / (a + b), and 0 where both are 0; elementwise on arrays."""
    total = np.add(a, b)
    return 2 * np.multiply(a, b) / np.where(total == 0, 1.0, total)


def _by_class(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the scores of the negative and of the positive images, each in ascending order."""
    scores, labels = np.asarray(scores), np.asarray(labels)
    _same_shape(scores, labels)
    negative, positive = np.sort(scores[labels == 0]), np.sort(scores[labels == 1])
    if negative.size + positive.size != labels.size:
        raise ValueError("`labels` holds values other than 0 (negative) and 1 (positive).")
    if not negative.size or not positive.size:
        raise UndefinedError(
            f"Of {labels.size} images {positive.size} are positive and {negative.size} negative: "
            f"a class is absent. Pass images of both."
        )
    if np.isnan(negative[-1]) or np.isnan(positive[-1]):  # a sort puts NaN last
        raise ValueError("`scores` holds NaN. Leave undecidable images out, and count them.")
    return negative, positive


def sensitivity_specificity_at(
    scores: np.ndarray, labels: np.ndarray, thresholds: float | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Computes both rates at each threshold; an image is positive when its score is >= it.

    Args:
      scores: `[n]`, not NaN.
      labels: `[n]`, 0 or 1.
      thresholds: one, or an array of any shape and order.

    Returns:
      Sensitivity and specificity, float64, each of the shape of `thresholds`.

    Raises:
      UndefinedError: a class is absent.
      ValueError: the shapes differ, a score is NaN, or a label is neither 0 nor 1.
    """
    negative, positive = _by_class(scores, labels)
    missed = np.searchsorted(positive, thresholds)
    spared = np.searchsorted(negative, thresholds)
    return (len(positive) - missed) / len(positive), spared / len(negative)


def sensitivity_specificity(decisions: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Computes both rates over the decided images.

    Args:
      decisions: `[n]`, 1 positive, 0 negative, -1 undecidable (`decision.decide`); the last are
        left out, so their number is to be stated beside the rates.
      labels: `[n]`, 0 or 1.

    Returns:
      Sensitivity and specificity.

    Raises:
      UndefinedError: no decided image is positive, or none negative.
      ValueError: the shapes differ, or a decision or a label is none of those values.
    """
    decisions, labels = np.asarray(decisions), np.asarray(labels)
    _same_shape(decisions, labels)
    if not ((decisions == 1) | (decisions == 0) | (decisions == -1)).all():
        raise ValueError(
            "`decisions` holds values other than 1, 0 and -1. Apply a threshold first."
        )
    decided = decisions >= 0
    sensitivity, specificity = sensitivity_specificity_at(decisions[decided], labels[decided], 1)
    return float(sensitivity), float(specificity)


def auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Computes the area under the ROC curve.

    It is the chance that a positive image scores higher than a negative one, a tie counting one
    half: the Mann-Whitney statistic over the number of pairs.

    Args:
      scores: `[n]`, not NaN.
      labels: `[n]`, 0 or 1.

    Returns:
      A share from 0 to 1.

    Raises:
      UndefinedError: a class is absent.
      ValueError: the shapes differ, a score is NaN, or a label is neither 0 nor 1.
    """
    negative, positive = _by_class(scores, labels)
    below = np.searchsorted(negative, positive, side="left")
    not_above = np.searchsorted(negative, positive, side="right")
    return float((below.sum() + not_above.sum()) / (2 * len(negative) * len(positive)))


def roc_curve(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lists the points of the ROC curve, from (0, 0) to (1, 1).

    Args:
      scores: `[n]`, not NaN.
      labels: `[n]`, 0 or 1.

    Returns:
      False positive rate, true positive rate and threshold, each `[m + 1]` float64 where m is the
      number of different scores; thresholds fall from infinity to the lowest score.

    Raises:
      UndefinedError: a class is absent.
      ValueError: the shapes differ, a score is NaN, or a label is neither 0 nor 1.
    """
    thresholds = np.append(np.inf, np.unique(scores)[::-1])
    sensitivity, specificity = sensitivity_specificity_at(scores, labels, thresholds)
    return 1 - specificity, sensitivity, thresholds


def bootstrap(
    statistic: Statistic,
    *arrays: np.ndarray,
    patients: np.ndarray,
    strata: np.ndarray | None = None,
    repeats: int = 2000,
    seed: int = 0,
) -> np.ndarray:
    """Computes a statistic on resamples of the patients, drawn with replacement.

    All images of a patient come together, once for each time that he is drawn: images of one
    patient resemble each other, and drawing them one by one would feign certainty.

    Args:
      statistic: `(*arrays) -> float`, or `[k]` of several figures at once.
      *arrays: `[n, ...]` each, one row an image.
      patients: `[n]` ids.
      strata: `[n]` integers >= 0, or None. With labels, every resample has as many positive and
        negative patients as the cohort: rates and AUC are conditional on the class, and how many
        patients of each were collected was decided, not observed. A patient whose images differ
        belongs to his highest stratum.
      repeats: number of resamples.
      seed: of the draw.

    Returns:
      `[repeats]` or `[repeats, k]` float64; NaN on resamples where the statistic is undefined.

    Raises:
      UndefinedError: the statistic is undefined on all the data.
      ValueError: an array is not as long as `patients`, or `repeats` is not positive.
    """
    _check.positive(repeats=repeats)
    for array in arrays if strata is None else (*arrays, strata):
        if len(array) != len(patients):
            raise ValueError(
                f"An array of {len(array)} rows does not fit {len(patients)} patient ids. "
                f"Pass one row for each image."
            )
    ids, owner = np.unique(patients, return_inverse=True)
    stratum = np.zeros(len(ids), np.int64)
    if strata is not None:
        np.maximum.at(stratum, owner, strata)

    rng = np.random.default_rng(seed)
    times = np.empty((repeats, len(ids)), np.int64)  # how often each patient is drawn
    for value in np.unique(stratum):
        members = np.flatnonzero(stratum == value)
        share = np.full(len(members), 1 / len(members))
        times[:, members] = rng.multinomial(len(members), share, repeats)

    values = np.full((repeats, *np.shape(statistic(*arrays))), np.nan)
    for i, drawn in enumerate(times):
        rows = np.repeat(np.arange(len(owner)), drawn[owner])
        with contextlib.suppress(UndefinedError):
            values[i] = statistic(*(array[rows] for array in arrays))
    return values


def percentile_interval(
    values: np.ndarray, level: float = 0.95
) -> tuple[float | np.ndarray, float | np.ndarray]:
    """Computes the percentile interval of what `bootstrap` returned, undefined resamples skipped.

    It needs no formula and stays within 0 and 1, but shrinks to a point where a rate is 0 or 1
    exactly, and is a little too narrow for a few dozen patients.

    Args:
      values: `[repeats]` or `[repeats, k]`; NaN where undefined.
      level: share of the resamples inside.

    Returns:
      Low and high end, scalars or `[k]`.

    Raises:
      UndefinedError: the statistic is undefined on every resample.
      ValueError: `level` is not a share.
    """
    _check.share(level=level)
    if np.isnan(values).all(axis=0).any():
        raise UndefinedError("The statistic is undefined on every resample. Pass more patients.")
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def bootstrap_interval(
    statistic: Statistic,
    *arrays: np.ndarray,
    patients: np.ndarray,
    strata: np.ndarray | None = None,
    level: float = 0.95,
    repeats: int = 2000,
    seed: int = 0,
) -> tuple[float | np.ndarray, float | np.ndarray]:
    """Computes the percentile bootstrap interval over patients of a statistic.

    `percentile_interval` of `bootstrap`, which see. To learn how many resamples were skipped, call
    the two in turn and count the NaN.
    """
    values = bootstrap(
        statistic, *arrays, patients=patients, strata=strata, repeats=repeats, seed=seed
    )
    return percentile_interval(values, level)
