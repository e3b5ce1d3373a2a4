"""Whether scores are probabilities: of the images that are given .8, are eight in ten positive?"""

import numpy as np

from gxdistill import _check
from gxdistill.pytrees import Metadata

BINS = 10


def brier_score(scores: np.ndarray, labels: np.ndarray) -> float:
    """Computes the mean squared distance of scores from labels: 0 is best, .25 says nothing.

    Brier 1950, https://doi.org/10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2.

    Args:
      scores: from 0 to 1, `[n]`.
      labels: 0 or 1, `[n]`.
    """
    return float(np.square(scores - labels).mean())


def reliability(
    scores: np.ndarray, labels: np.ndarray, bins: int = BINS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compares scores with how often they are right, in bins of equal width.

    Args:
      scores: from 0 to 1, `[n]`.
      labels: 0 or 1, `[n]`.
      bins: number of bins, the last of which holds a score of 1, too.

    Returns:
      For each bin that is not empty the mean score, the share of positives, and the number.

    Raises:
      ValueError: a score is not from 0 to 1, or the numbers of scores and labels differ.
    """
    _check.positive(bins=bins)
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels)
    if scores.shape != labels.shape:
        raise ValueError(f"`scores` {scores.shape} and `labels` {labels.shape} differ in number.")
    if not ((scores >= 0) & (scores <= 1)).all():
        raise ValueError("`scores` holds values outside 0 to 1. Leave undecidable images out.")
    place = np.minimum((scores * bins).astype(int), bins - 1)
    counts = np.bincount(place, minlength=bins)
    filled = counts > 0
    means, shares = (
        np.bincount(place, weights, bins)[filled] / counts[filled] for weights in (scores, labels)
    )
    return means, shares, counts[filled]


def expected_calibration_error(scores: np.ndarray, labels: np.ndarray, bins: int = BINS) -> float:
    """Computes the mean gap between scores and shares of positives over the bins, by their images.

    Guo et al. 2017, https://arxiv.org/abs/1706.04599. Args and errors are those of `reliability`.
    """
    means, shares, counts = reliability(scores, labels, bins)
    return float(np.average(np.abs(means - shares), weights=counts))


def summarise(scores: np.ndarray, labels: np.ndarray) -> Metadata | None:
    """Summarises the decidable images for a page: `brier`, `ece`, and the bins.

    Args:
      scores: `[n]`; NaN where undecidable.
      labels: `[n]`, 0 or 1.

    Returns:
      What JSON can hold; None where no image is decidable.
    """
    decided = ~np.isnan(scores)
    if not decided.any():
        return None
    scores, labels = scores[decided], labels[decided]
    means, shares, counts = reliability(scores, labels)
    return {
        "brier": brier_score(scores, labels),
        "ece": expected_calibration_error(scores, labels),
        "score": means.tolist(),
        "positive": shares.tolist(),
        "images": counts.tolist(),
    }
