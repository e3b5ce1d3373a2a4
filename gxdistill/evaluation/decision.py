"""From patch predictions to a decision on the whole image.

Patch classes: 0 irrelevant (I), 1 non-gastritis or negative (N), 2 gastritis or positive (P). An
image is positive when its score, the share of P among its N and P patches or, by zones, a chance,
reaches a threshold tau that was chosen on training images. An image of which every patch is
irrelevant has no score: it is undecidable, counted apart and never guessed. That whole images are
decided from the predicted patch labels is from Li et al., https://arxiv.org/abs/2104.02857; the
rules themselves are ours.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gxdistill import _check
from gxdistill.evaluation import metrics, zones

RULES = ("counts", "soft", "zones")


def _share(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    total = positive + negative
    return np.divide(positive, total, out=np.full(total.shape, np.nan), where=total > 0)


def image_scores(patch_classes: np.ndarray) -> np.ndarray:
    """Computes n_P / (n_P + n_N) of each image.

    Args:
      patch_classes: predicted classes, `[n_images, n_patches]` integer, 0 = I, 1 = N, 2 = P. Images
        with fewer patches are filled up with 0, which counts for nothing.

    Returns:
      Scores from 0 to 1, `[n_images]` float64; NaN where no patch is N or P.

    Raises:
      ValueError: a class is none of the three.
    """
    patch_classes = np.asarray(patch_classes)
    if not np.isin(patch_classes, (0, 1, 2)).all():
        raise ValueError("`patch_classes` holds values other than 0 (I), 1 (N) and 2 (P).")
    return _share((patch_classes == 2).sum(axis=1), (patch_classes == 1).sum(axis=1))


def soft_image_scores(patch_probabilities: np.ndarray) -> np.ndarray:
    """Computes sum p_P / sum (p_P + p_N) of each image, over the patches not taken for irrelevant.

    Args:
      patch_probabilities: `[n_images, n_patches, 3]`, of I, N and P.

    Returns:
      Scores from 0 to 1, `[n_images]` float64; NaN where every patch is most probably irrelevant.
    """
    relevant = patch_probabilities.argmax(axis=2) != 0
    sums = (patch_probabilities * relevant[..., None]).sum(axis=1, dtype=np.float64)
    return _share(sums[:, 2], sums[:, 1])


def score(
    rule: str,
    probabilities: np.ndarray,
    *,
    corners: np.ndarray | None = None,
    weights: Sequence[float] = (),
) -> np.ndarray:
    """Computes the scores of images from the class probabilities of their patches.

    Args:
      rule: "counts", the papers': each patch has one vote; "soft": votes weighed by probability;
        or "zones": by where in the organ the patches lie, too, see `evaluation.zones`.
      probabilities: `[n_images, n_patches, 3]`, of I, N and P; or `[n_images, n_patches, 2]`, of N
        and P, where the cohort has no masks and no patch is irrelevant.
      corners: of the patches, row and column, `[n_patches, 2]`; for "zones" alone.
      weights: from `fit_weights`; for "zones" alone.

    Returns:
      Scores from 0 to 1, `[n_images]` float64; NaN where undecidable, as is every image with a
      probability that is NaN: the network has diverged.

    Raises:
      ValueError: the rule is unknown or lacks corners or weights, or there are not 2 or 3 classes.
    """
    _check.one_of("rule", rule, RULES)
    probabilities = _of_three(probabilities)
    if rule == "counts":
        scores = image_scores(probabilities.argmax(axis=2))
    elif rule == "soft":
        scores = soft_image_scores(probabilities)
    else:
        _check.one_of("len(weights)", len(weights), (zones.WEIGHTS,))
        scores = zones.chances(_by_zones(probabilities, corners), np.asarray(weights))
    # To argmax, NaN is the most probable class.
    return np.where(np.isnan(probabilities).any(axis=(1, 2)), np.nan, scores)


def fit_weights(
    rule: str, probabilities: np.ndarray, labels: np.ndarray, corners: np.ndarray
) -> tuple[float, ...]:
    """Fits the weights that a rule scores images with. To be called with training images only.

    Args:
      rule: one of `RULES`.
      probabilities: of R networks, `[R, n_images, n_patches, K]`, as `score` takes them of one.
      labels: `[n_images]`, 0 or 1.
      corners: of the patches, row and column, `[n_patches, 2]`.

    Returns:
      For "zones" the mean of the weights that suit each network, fitted on the images that it can
      decide; for other rules, which need none, nothing.
    """
    if rule != "zones":
        return ()
    fitted = []
    for of_network in probabilities:
        features = _by_zones(_of_three(of_network), corners)
        decided = np.isfinite(features).all(axis=1)
        fitted.append(zones.fit(features[decided], np.asarray(labels)[decided]))
    return tuple(np.mean(fitted, axis=0).tolist())


def _of_three(probabilities: np.ndarray) -> np.ndarray:
    """Puts class I beside N and P where there are these two: no patch is of it."""
    probabilities = np.asarray(probabilities)
    _check.one_of("probabilities.shape[2]", probabilities.shape[2], (2, 3))
    if probabilities.shape[2] == 2:
        return np.pad(probabilities, ((0, 0), (0, 0), (1, 0)))
    return probabilities


def _by_zones(probabilities: np.ndarray, corners: np.ndarray | None) -> np.ndarray:
    if corners is None:
        raise ValueError("The rule 'zones' asks where patches lie: give `corners`.")
    return zones.log_odds(probabilities, corners)


def choose_threshold(scores: np.ndarray, labels: np.ndarray) -> float:
    """Chooses the tau that maximises the harmonic mean (HM) of sensitivity and specificity.

    HM is constant between neighbouring scores, so there is a best interval, not a best point; tau
    is the middle of the widest. Undecidable images are left out. To be called with training images
    only.

    Args:
      scores: `[n_images]` of one network, or `[R, n_images]` of several, whose mean HM is
        maximised; NaN where undecidable.
      labels: `[n_images]`, 0 or 1.

    Returns:
      tau; an image is positive when its score is >= tau. Where all scores are alike no threshold
      separates anything, and tau is that score: every image is positive.

    Raises:
      UndefinedError: one of the networks can decide no image of a class.
      ValueError: the shapes differ, or a label is neither 0 nor 1.
    """
    scores = np.atleast_2d(scores)
    edges = np.unique(scores[~np.isnan(scores)])
    means = np.zeros(max(len(edges) - 1, 0))  # HM for tau in (edges[i], edges[i + 1]]
    for row, truth in zip(scores, np.broadcast_to(labels, scores.shape), strict=True):
        decided = ~np.isnan(row)
        rates = metrics.sensitivity_specificity_at(row[decided], truth[decided], edges[1:])
        means += metrics.harmonic_mean(*rates) / len(scores)
    if len(edges) == 1:
        return float(edges[0])

    best = np.concatenate([[False], np.isclose(means, means.max(), rtol=0, atol=1e-12), [False]])
    turns = np.flatnonzero(np.diff(best))  # neighbours of equal HM are one interval
    low, high = edges[turns[::2]], edges[turns[1::2]]
    widest = np.argmax(high - low)
    # Between two floats with none between them the middle rounds to one or the other.
    return float(max((low[widest] + high[widest]) / 2, np.nextafter(low[widest], np.inf)))


def decide(scores: np.ndarray, tau: float) -> np.ndarray:
    """Decides each image.

    Args:
      scores: `[n_images]`; NaN where undecidable.
      tau: threshold.

    Returns:
      `[n_images]` int: 1 positive (score >= tau), 0 negative, -1 undecidable.
    """
    return np.where(np.isnan(scores), -1, (scores >= tau).astype(int))


def summarise(
    scores: np.ndarray,
    labels: np.ndarray,
    tau: float,
    *,
    patients: np.ndarray,
    repeats: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Measures the decisions on a set of images, with 95% bootstrap intervals over patients.

    Args:
      scores: `[n_images]`; NaN where undecidable.
      labels: `[n_images]`, 0 or 1.
      tau: threshold, chosen on other patients.
      patients: `[n_images]` ids.
      repeats: number of bootstrap resamples.
      seed: of the bootstrap.

    Returns:
      What JSON can hold: "sen", "spe", "hm", "auc", each {"value", "low", "high"}, over the decided
      images, None where these lack a class; "undecidable" and "n", numbers of images; "skipped",
      number of resamples left out because a class was absent.

    Raises:
      ValueError: a label is neither 0 nor 1.
    """

    def measure(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
        rates = metrics.sensitivity_specificity_at(scores, labels, tau)
        return np.array([*rates, metrics.harmonic_mean(*rates), metrics.auc(scores, labels)])

    scores, labels, patients = np.asarray(scores), np.asarray(labels), np.asarray(patients)
    decided = ~np.isnan(scores)
    kept = scores[decided], labels[decided]
    try:
        values = metrics.bootstrap(
            measure,
            *kept,
            patients=patients[decided],
            strata=kept[1],
            repeats=repeats,
            seed=seed,
        )
        rows = np.stack([measure(*kept), *metrics.percentile_interval(values)], axis=1).tolist()
        skipped = int(np.isnan(values[:, 0]).sum())
    except metrics.UndefinedError:
        rows, skipped = [[None] * 3] * 4, repeats
    figures = {
        name: dict(zip(("value", "low", "high"), row, strict=True))
        for name, row in zip(("sen", "spe", "hm", "auc"), rows, strict=True)
    }
    return {**figures, "undecidable": int((~decided).sum()), "n": len(scores), "skipped": skipped}
