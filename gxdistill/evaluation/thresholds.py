"""Thresholds that a receiver can set: from images without labels, or from a few with them.

A sender's threshold is worth little where prevalence or contrast differ. What travels better is
the share of images that are to be called positive: it needs no labels, and of the scores only their
order.
"""

from typing import NamedTuple

import numpy as np

from gxdistill import _check
from gxdistill.evaluation import decision

_RESAMPLED = 1000


class Threshold(NamedTuple):
    """A threshold of image scores, and how sure it is.

    Attributes:
      tau: an image is positive where its score is at least that.
      low: lower end of its 95% bootstrap interval over images.
      high: upper end.
      images: number of images with a score that it was set on.
    """

    tau: float
    low: float
    high: float
    images: int


def share_positive(scores: np.ndarray, tau: float) -> float:
    """Computes the share of decidable images that a threshold calls positive."""
    decided = scores[~np.isnan(scores)]
    return float((decided >= tau).mean())


def by_share(scores: np.ndarray, share: float, *, seed: int = 0) -> Threshold:
    """Sets the threshold that calls a given share of unlabelled images positive.

    Args:
      scores: of the receiver's images, `[n]`; NaN where undecidable, which are left out.
      share: of images that are to be positive: a prevalence that is known, or the sender's share.
      seed: of the bootstrap.

    Returns:
      The threshold.

    Raises:
      ValueError: `share` is outside 0 to 1, or no image has a score.
    """
    _check.share(share=share)
    decided = scores[~np.isnan(scores)]
    if not len(decided):
        raise ValueError("No image has a score; a threshold needs some.")

    def quantile(values: np.ndarray) -> np.ndarray:
        return np.quantile(values, 1 - share, axis=-1)

    rng = np.random.default_rng(seed)
    drawn = quantile(decided[rng.integers(0, len(decided), (_RESAMPLED, len(decided)))])
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Threshold(float(quantile(decided)), float(low), float(high), len(decided))


def by_labels(scores: np.ndarray, labels: np.ndarray, *, seed: int = 0) -> Threshold:
    """Sets the threshold of the best harmonic mean on a few labelled images.

    Args:
      scores: of the images, `[n]`; NaN where undecidable, which are left out.
      labels: theirs, `[n]`, 0 or 1.
      seed: of the bootstrap, which draws each class by itself.

    Returns:
      The threshold.

    Raises:
      UndefinedError: a class has no decidable image.
      ValueError: a label is neither 0 nor 1.
    """
    tau = decision.choose_threshold(scores, labels)
    decided = ~np.isnan(scores)
    scores, labels = scores[decided], labels[decided]
    rng = np.random.default_rng(seed)
    classes = [np.flatnonzero(labels == label) for label in (0, 1)]
    taus = []
    for _ in range(_RESAMPLED):
        chosen = np.concatenate([rng.choice(rows, len(rows)) for rows in classes])
        taus.append(decision.choose_threshold(scores[chosen], labels[chosen]))
    low, high = np.quantile(taus, (0.025, 0.975))
    return Threshold(tau, float(low), float(high), len(scores))
