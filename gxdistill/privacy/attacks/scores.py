"""How well an attack tells members from others, with intervals, and what it proves of epsilon.

All functions take scores that are higher the more an attack believes in membership: `[n]` of the
members, `[m]` of the others. Each patient counts once, as if patients were drawn independently.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from gxdistill import _check

LEVEL = 0.95


class Estimate(NamedTuple):
    """A figure with its interval.

    Attributes:
      value: as it was measured.
      low: lower end of the interval.
      high: upper end.
    """

    value: float
    low: float
    high: float


class Rate(NamedTuple):
    """The share of members that are told at a bound on false alarms.

    Attributes:
      bound: largest share of others that may be taken for members.
      reached: the share that are, at the threshold that was taken.
      share: of the members, with its interval.
    """

    bound: float
    reached: float
    share: Estimate


def _sorted(members: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    members, others = (np.sort(np.asarray(scores, float)) for scores in (members, others))
    if members.ndim != 1 or others.ndim != 1 or not members.size or not others.size:
        raise ValueError(
            f"Scores of shapes {members.shape} and {others.shape}: both sides need one score or "
            f"more, in one row."
        )
    if np.isnan(members[-1]) or np.isnan(others[-1]):  # a sort puts NaN last
        raise ValueError("A score is NaN. Leave out whom the attack cannot score, and count them.")
    return members, others


def clopper_pearson(count: int, total: int, level: float = LEVEL) -> Estimate:
    """Estimates a share from `count` of `total` independent trials, with its exact interval.

    Clopper & Pearson 1934, https://doi.org/10.1093/biomet/26.4.404; both ends together miss with
    a chance of `1 - level` at most.

    Raises:
      ValueError: `count` is not among 0 .. `total`, or there is no trial.
    """
    from scipy.special import betaincinv

    if not 0 <= count <= total or not total:
        raise ValueError(f"{count} of {total} is no share. Pass counts of one trial or more.")
    tail = (1 - level) / 2
    low = float(betaincinv(count, total - count + 1, tail)) if count else 0.0
    high = float(betaincinv(count + 1, total - count, 1 - tail)) if count < total else 1.0
    return Estimate(count / total, low, high)


def auc(members: np.ndarray, others: np.ndarray, level: float = LEVEL) -> Estimate:
    """Estimates the chance that a member scores higher than another; half of it where they tie.

    The statistic of Mann & Whitney 1947, not the area under an envelope of the curve, which is
    above 0.5 on noise. Its interval is method 5 of Newcombe 2006,
    https://doi.org/10.1002/sim.2324: it solves the variance of Hanley & McNeil for the true area,
    and so has a width where members and others do not overlap.

    Args:
      members: scores, `[n]`.
      others: scores, `[m]`.
      level: of the interval.

    Raises:
      ValueError: a side is empty, or a score is NaN.
    """
    from scipy.special import ndtri

    members, others = _sorted(members, others)
    below, upto = (np.searchsorted(others, members, side) for side in ("left", "right"))
    n, m = len(members), len(others)
    area = float((below + upto).sum()) / (2 * n * m)
    z = float(ndtri((1 + level) / 2))
    return Estimate(area, _newcombe(area, n, m, z, 0.0), _newcombe(area, n, m, z, 1.0))


def _newcombe(area: float, n: int, m: int, z: float, end: float) -> float:
    """Finds the true area, between `area` and `end`, of which `area` is z deviations off."""
    harmonic = (n + m) / 2 - 1

    def deviations(true: float) -> float:
        spread = 1 + harmonic * ((1 - true) / (2 - true) + true / (1 + true))
        return abs(true - area) - z * math.sqrt(true * (1 - true) * spread / (n * m))

    near, far = area, end
    for _ in range(60):
        middle = (near + far) / 2
        near, far = (middle, far) if deviations(middle) < 0 else (near, middle)
    return far


def rate_at(members: np.ndarray, others: np.ndarray, bound: float, level: float = LEVEL) -> Rate:
    """Estimates the share of members above a threshold that at most `bound` of the others exceed.

    The lowest such threshold is taken; that it was chosen on these others is not in the interval.
    Of fewer than `1 / bound` others none may be above it.

    Args:
      members: scores, `[n]`.
      others: scores, `[m]`.
      bound: share of others, from 0 to 1.
      level: of the interval.

    Raises:
      ValueError: a side is empty, or a score is NaN.
    """
    _check.share(bound=bound)
    members, others = _sorted(members, others)
    spared = others[len(others) - 1 - min(math.floor(bound * len(others)), len(others) - 1)]
    told = int((members > spared).sum())
    reached = float((others > spared).mean())
    return Rate(bound, reached, clopper_pearson(told, len(members), level))


def _log_ratio(told: np.ndarray, alarms: np.ndarray, delta: float) -> np.ndarray:
    """log((told - delta) / alarms), and 0 where that is negative or undefined."""
    ratio = np.maximum(told - delta, 0) / alarms
    return np.log(np.maximum(ratio, 1))


def _upper(counts: np.ndarray, total: int, chance: float) -> np.ndarray:
    """The upper ends of one-sided Clopper-Pearson intervals that miss with a given chance."""
    from scipy.special import betaincinv

    inner = betaincinv(counts + 1, np.maximum(total - counts, 1), 1 - chance)
    return np.where(counts < total, inner, 1.0)


def _bounds(
    missed: np.ndarray, n: int, alarms: np.ndarray, m: int, delta: float, chance: float
) -> np.ndarray:
    """Bounds epsilon at each threshold: by members told, and by others spared."""
    miss, alarm = _upper(missed, n, chance / 2), _upper(alarms, m, chance / 2)
    return np.maximum(_log_ratio(1 - miss, alarm, delta), _log_ratio(1 - alarm, miss, delta))


def epsilon_at(
    members: np.ndarray,
    others: np.ndarray,
    threshold: float,
    *,
    delta: float = 0.0,
    level: float = LEVEL,
) -> float:
    """Bounds epsilon from below by an attack whose threshold was fixed before it was tried.

    An (epsilon, delta) differentially private mechanism has no attack with
    log((TPR - delta) / FPR) or log((TNR - delta) / FNR) above epsilon (Kairouz et al. 2015,
    https://arxiv.org/abs/1311.0776); the rates are taken at the ends of their Clopper-Pearson
    intervals, as in Jagielski et al. 2020, https://arxiv.org/abs/2006.07709. Both ratios stand on
    the same two intervals, so that the larger holds as well.

    Args:
      members: scores, `[n]`.
      others: scores, `[m]`.
      threshold: above it, a patient is taken for a member.
      delta: of the guarantee that is looked at.
      level: chance that the bound holds.

    Returns:
      Epsilon; 0 where nothing is proved.

    Raises:
      ValueError: a side is empty, or a score is NaN.
    """
    members, others = _sorted(members, others)
    missed, alarms = (members <= threshold).sum(), (others > threshold).sum()
    counts = np.array([missed]), len(members), np.array([alarms]), len(others)
    return float(_bounds(*counts, delta, 1 - level)[0])


def epsilon(
    members: np.ndarray, others: np.ndarray, *, delta: float = 0.0, level: float = LEVEL
) -> float:
    """Bounds epsilon from below by the best threshold, corrected for having chosen it.

    Only thresholds at corners of the ROC curve's convex hull can be best. The chance of an error is
    shared among all of them (Bonferroni), the two where everyone or nobody is taken for a member
    included.

    Args and returns are those of `epsilon_at`, but for the threshold.
    """
    members, others = _sorted(members, others)
    thresholds = np.r_[-np.inf, np.union1d(members, others)]
    missed = np.asarray(np.searchsorted(members, thresholds, "right"))
    spared = np.asarray(np.searchsorted(others, thresholds, "right"))
    corners = _hull(missed, spared)
    missed, alarms = missed[corners], len(others) - spared[corners]
    chance = (1 - level) / len(corners)
    bounds = _bounds(missed, len(members), alarms, len(others), delta, chance)
    return float(bounds.max())


def _hull(missed: np.ndarray, spared: np.ndarray) -> np.ndarray:
    """Finds the upper convex hull of points that are in order of both coordinates."""
    corners: list[int] = []
    for i, (x, y) in enumerate(zip(missed.tolist(), spared.tolist(), strict=True)):
        while len(corners) > 1:
            (x0, y0), (x1, y1) = ((missed[c], spared[c]) for c in corners[-2:])
            if (x1 - x0) * (y - y0) < (y1 - y0) * (x - x0):
                break
            corners.pop()
        corners.append(i)
    return np.array(corners)


def ceiling(
    members: int, others: int, *, chosen: bool, delta: float = 0.0, level: float = LEVEL
) -> float:
    """Computes the epsilon that an attack without any error would prove with so many patients.

    No measurement with these numbers can prove more: an empirical epsilon is to be read beside it.

    Args:
      members: number of them.
      others: number of them.
      chosen: whether the threshold was chosen, as by `epsilon`, or fixed, as in `epsilon_at`.
      delta: as there.
      level: as there.
    """
    right, wrong = np.ones(members), np.zeros(others)
    if chosen:
        return epsilon(right, wrong, delta=delta, level=level)
    return epsilon_at(right, wrong, 0.5, delta=delta, level=level)


def epsilon_of_guesses(
    right: int, guesses: int, *, trials: int, delta: float = 0.0, level: float = LEVEL
) -> float:
    """Bounds epsilon from below by guesses at independent, fair coins that decided on membership.

    Theorem 5.2 of Steinke, Nasr & Jagielski 2023, https://arxiv.org/abs/2305.08846: of a mechanism
    that is (epsilon, delta) private, right guesses are at most binomial with the chance
    e^epsilon / (1 + e^epsilon), but for a term in delta. It needs no independence among the
    patients of one run; guesses of several runs with coins of their own add up.

    Args:
      right: number of right guesses.
      guesses: number of guesses; others may be abstained from.
      trials: number of coins.
      delta: of the guarantee that is looked at.
      level: chance that the bound holds.

    Returns:
      Epsilon; 0 where nothing is proved.

    Raises:
      ValueError: the numbers do not fit each other.
    """
    if not 0 <= right <= guesses <= trials:
        raise ValueError(f"{right} right guesses, {guesses} guesses and {trials} coins do not fit.")
    low, high = 0.0, 64.0  # Of guesses in any number that a computer makes.
    if _chance_of_guesses(low, right, guesses, trials, delta) > 1 - level:
        return 0.0
    for _ in range(60):
        middle = (low + high) / 2
        refuted = _chance_of_guesses(middle, right, guesses, trials, delta) <= 1 - level
        low, high = (middle, high) if refuted else (low, middle)
    return low


def _chance_of_guesses(
    epsilon: float, right: int, guesses: int, trials: int, delta: float
) -> float:
    """Bounds the chance of so many right guesses where (epsilon, delta) holds."""
    from scipy.special import bdtrc

    chance = 1 / (1 + math.exp(-epsilon))

    def at_least(count: Any) -> Any:
        return np.where(count > 0, bdtrc(np.maximum(count, 1) - 1, guesses, chance), 1.0)

    beyond = float(at_least(right))
    if not delta or not right:
        return beyond
    steps = np.arange(1, right + 1)
    slope = float(((at_least(right - steps) - beyond) / steps).max())
    return min(beyond + 2 * trials * delta * max(slope, 0.0), 1.0)
