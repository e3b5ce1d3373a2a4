"""Do two records belong to the same patient? What a package adds to that.

The patches of each patient are parted into two records. Both are described by their distances to
the distilled images; the attacker links the records that are described most alike. Halves of one
image are alike by themselves, so that members are held against patients of whom nothing was
learned: only what is easier with members is due to the package.
"""

import numpy as np


def _profiles(distances: np.ndarray, centre: np.ndarray, spread: np.ndarray) -> np.ndarray:
    return (distances - centre) / spread


def linked(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Ranks the true second record of each patient among the second records of all.

    Args:
      first: distances of each patient's first record to m distilled images, `[P, m]`.
      second: likewise of the second record.

    Returns:
      For each patient, the share of others whose second record is less like the patient's first
      one, ties half: `[P]`, 1 where the true record is the most alike, 0.5 by chance.

    Raises:
      ValueError: the shapes differ, or there are fewer than two patients.
    """
    if first.shape != second.shape or first.ndim != 2 or len(first) < 2:
        raise ValueError(
            f"Records of shapes {first.shape} and {second.shape}: pass [P, m] of both, of two "
            f"patients or more."
        )
    both = np.concatenate([first, second])
    # Distances to one distilled image are comparable among patients; among images they are not.
    centre, spread = both.mean(axis=0), np.maximum(both.std(axis=0), 1e-12)
    a, b = _profiles(first, centre, spread), _profiles(second, centre, spread)
    apart = np.stack([np.square(row - b).sum(axis=1) for row in a])
    true = np.diag(apart)[:, None]
    others = ~np.eye(len(a), dtype=bool)
    worse = (apart > true).astype(float) + 0.5 * (apart == true)
    return np.where(others, worse, 0).sum(axis=1) / (len(a) - 1)
