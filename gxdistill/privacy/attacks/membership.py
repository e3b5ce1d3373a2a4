"""Was a patient among those that a package was made of? Attacks that compare with shadow cohorts.

A shadow is a run of the same recipe on patients of the attacker's choice. Every function takes one
statistic of each patient, higher where a run fits the patient better, as the mean log likelihood of
the true class over the patient's patches: `[P]` of the run that is attacked, `[K, P]` of K shadows,
with `[K, P]` bool of who was in which.
"""

from collections.abc import Callable

import numpy as np

_FLOOR = 1e-9  # Of a variance: statistics that never vary still give finite ratios.

Attack = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def _moments(shadows: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Counts and averages each patient's chosen runs; pools the variance over all patients."""
    count = chosen.sum(axis=0)
    mean = np.where(chosen, shadows, 0).sum(axis=0) / np.maximum(count, 1)
    squares = np.where(chosen, np.square(shadows - mean), 0).sum()
    freedom = np.maximum(count - 1, 0).sum()
    return count, mean, max(float(squares / max(freedom, 1)), _FLOOR)


def _check_shapes(target: np.ndarray, shadows: np.ndarray, members: np.ndarray) -> None:
    if shadows.shape != members.shape or shadows.shape[1:] != target.shape or target.ndim != 1:
        raise ValueError(
            f"Statistics {target.shape}, shadows {shadows.shape} and members {members.shape} do "
            f"not fit. Pass [P], [K, P] and [K, P]."
        )
    if not members.any() or members.all():
        raise ValueError("All shadows hold everyone or nobody. Draw shadows of some patients.")


def lira(target: np.ndarray, shadows: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Scores patients by the likelihood ratio of having been in the run, or not.

    Carlini et al. 2022, https://arxiv.org/abs/2112.03570: a Gaussian of the runs with the patient
    and one of those without, their variances pooled over patients, as for few shadows there. With
    few shadows the gap between a patient's two means is mostly noise, too. It is drawn towards the
    mean gap of all patients as far as its own variance explains (empirical Bayes), and the runs
    without the patient tell of the mean with, and the reverse; with many shadows this is the
    original.

    Args:
      target: statistics of the run that is attacked, `[P]`.
      shadows: of K runs, `[K, P]`.
      members: who was in which, `[K, P]` bool.

    Returns:
      Log likelihood ratios, `[P]`: above 0, a patient is likelier to have been in.

    Raises:
      ValueError: the shapes do not fit, or the shadows tell of one side only.
    """
    target, shadows = np.asarray(target, float), np.asarray(shadows, float)
    members = np.asarray(members, bool)
    _check_shapes(target, shadows, members)
    n_in, mean_in, var_in = _moments(shadows, members)
    n_out, mean_out, var_out = _moments(shadows, ~members)
    both = (n_in > 0) & (n_out > 0)
    noise = var_in / np.maximum(n_in, 1) + var_out / np.maximum(n_out, 1)
    gaps = mean_in - mean_out
    gap = float(np.average(gaps[both], weights=1 / noise[both])) if both.any() else 0.0
    spread = max(float(np.mean(np.square(gaps[both] - gap) - noise[both])), 0) if both.any() else 0
    trust = np.where(both, spread / (spread + noise), 0)
    gaps = gap + trust * (np.where(both, gaps, gap) - gap)
    # All runs tell where a patient stands, once the gap is taken from those with the patient.
    weight_in, weight_out = n_in / var_in, n_out / var_out
    base = (weight_in * (mean_in - gaps) + weight_out * mean_out) / (weight_in + weight_out)
    return _log_normal(target, base + gaps, var_in) - _log_normal(target, base, var_out)


def _log_normal(x: np.ndarray, mean: np.ndarray, variance: float) -> np.ndarray:
    return -np.square(x - mean) / (2 * variance) - np.log(variance) / 2


def rmia(
    target: np.ndarray, shadows: np.ndarray, members: np.ndarray, *, gamma: float = 1.0
) -> np.ndarray:
    """Scores patients by how many others their likelihood rose more than.

    Zarifzadeh et al. 2024, https://arxiv.org/abs/2312.03262: the share of patients z for which
    [p(x | run) / p(x)] / [p(z | run) / p(z)] >= gamma, where p(x) is the mean over the shadows,
    those with x and those without weighing the same. The others are those of the same statistics.

    Args:
      target: log likelihoods under the run that is attacked, `[P]`; other args as of `lira`.
      shadows: of K runs, `[K, P]`.
      members: who was in which, `[K, P]` bool.
      gamma: by how much x must have risen more.

    Returns:
      Shares, `[P]`, from 0 to 1.

    Raises:
      ValueError: as `lira`, or `gamma` is not positive.
    """
    if not gamma > 0:
        raise ValueError(f"`gamma` is {gamma}; it must be positive.")
    target, shadows = np.asarray(target, float), np.asarray(shadows, float)
    members = np.asarray(members, bool)
    _check_shapes(target, shadows, members)
    sides = np.stack([_log_mean(shadows, members), _log_mean(shadows, ~members)])
    # A patient whom all shadows held, or none, has one side only.
    sides = np.where(np.isfinite(sides), sides, sides[::-1])
    risen = target - (np.logaddexp(*sides) - np.log(2))
    behind = risen[:, None] - risen[None] >= np.log(gamma)
    np.fill_diagonal(behind, val=False)
    return behind.sum(axis=1) / max(len(target) - 1, 1)


def _log_mean(shadows: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Averages likelihoods over each patient's chosen runs, in logs; -inf where there is none."""
    count = chosen.sum(axis=0)
    total = np.logaddexp.reduce(np.where(chosen, shadows, -np.inf), axis=0)
    return total - np.log(np.maximum(count, 1))


def without_shadows(target: np.ndarray, shadows: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Scores patients by the statistic itself: what a recipient can do who makes no shadow."""
    del shadows, members
    return np.asarray(target, float)


def each_left_out(attack: Attack, shadows: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Attacks each shadow in turn by the others, so that the recipe is judged, not one package.

    Args:
      attack: one of the functions above.
      shadows: statistics of K runs, `[K, P]`, K at least 2.
      members: who was in which, `[K, P]` bool.

    Returns:
      Scores, `[K, P]`.
    """
    rows = np.arange(len(shadows))
    return np.stack(
        [attack(shadows[k], shadows[rows != k], np.asarray(members)[rows != k]) for k in rows]
    )
