"""The threshold of whole images, chosen on a noisy histogram of the patients' scores."""

import jax
import numpy as np

from gxdistill.privacy import clipping
from gxdistill.privacy.ledger import Ledger, gaussian_release

WHAT = "scores that the threshold is chosen on"
BINS = 20
_NORM = 1.0  # Of a patient's share of the histogram.


def patient_histograms(scores: np.ndarray, labels: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """Counts the scores of each patient's images by label and bin, on average over the images.

    Args:
      scores: `[n]`, from 0 to 1; NaN where undecidable, which counts for nothing.
      labels: `[n]`, 0 or 1.
      patients: `[n]`, ids.

    Returns:
      `[P, 2, BINS]` float32, of an L2 norm of 1 at most each.
    """
    _, owner = np.unique(patients, return_inverse=True)
    decided = ~np.isnan(scores)
    bins = np.minimum((scores[decided] * BINS).astype(int), BINS - 1)
    histograms = np.zeros((owner.max() + 1, 2, BINS), np.float32)
    np.add.at(histograms, (owner[decided], labels[decided], bins), 1)
    return histograms / np.bincount(owner)[:, None, None].astype(np.float32)


def release_histogram(
    key: jax.Array, histograms: np.ndarray, noise_multiplier: float, ledger: Ledger
) -> tuple[np.ndarray, Ledger]:
    """Adds up patients' histograms, with noise, and books it.

    Args:
      key: typed and secret, see `ledger.gaussian_release`.
      histograms: from `patient_histograms`.
      noise_multiplier: of the noise.
      ledger: what was released before.

    Returns:
      The noisy counts, `[2, BINS]`, and the ledger with the event.

    Raises:
      BudgetError: the budget would be exceeded.
    """
    total = clipping.clipped_sum(histograms, _NORM)
    noisy, ledger = gaussian_release(
        key,
        total,
        sensitivity=clipping.sensitivity(_NORM),
        noise_multiplier=noise_multiplier,
        ledger=ledger,
        what=WHAT,
    )
    return np.asarray(noisy), ledger


def choose(counts: np.ndarray) -> tuple[float, float]:
    """Chooses the edge of bins with the best harmonic mean of sensitivity and specificity.

    Args:
      counts: `[2, BINS]`, noisy; what is negative counts as none.

    Returns:
      tau, and the share of all that reaches it; the middle one of several that are as good.
    """
    counts = np.maximum(counts, 0)
    reaching = counts[:, ::-1].cumsum(axis=1)[:, ::-1]  # Of each label, at or above a bin's edge.
    totals = np.maximum(counts.sum(axis=1), 1e-9)
    sensitivity, specificity = reaching[1] / totals[1], 1 - reaching[0] / totals[0]
    both = sensitivity + specificity
    mean = np.divide(2 * sensitivity * specificity, both, out=np.zeros(BINS), where=both > 0)
    best = np.flatnonzero(mean >= mean.max() - 1e-9)
    edge = int(best[len(best) // 2])
    return edge / BINS, float(reaching[:, edge].sum() / totals.sum())
