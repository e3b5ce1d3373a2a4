"""Can a label be inferred of a patient? Of members more often than of anyone else?

That networks from a package tell the label of a stranger's image is what it was made for; a leak is
only what they tell better of the patients that it was made of.
"""

import math

from gxdistill.privacy.attacks import scores


def difference(
    right_members: int,
    members: int,
    right_others: int,
    others: int,
    level: float = scores.LEVEL,
) -> scores.Estimate:
    """Estimates by how much more often an attribute is guessed right of members than of others.

    The hybrid score interval, method 10 of Newcombe 1998,
    https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8%3C873::AID-SIM779%3E3.0.CO;2-I.

    Args:
      right_members: members whose attribute was guessed.
      members: all of them.
      right_others: others whose attribute was guessed.
      others: all of them.
      level: of the interval.

    Raises:
      ValueError: counts do not fit.
    """
    for right, of in ((right_members, members), (right_others, others)):
        if not 0 <= right <= of or not of:
            raise ValueError(f"{right} of {of} is no share. Pass counts of one patient or more.")
    a, b = wilson(right_members, members, level), wilson(right_others, others, level)
    gap = a.value - b.value
    return scores.Estimate(
        gap,
        gap - math.hypot(a.value - a.low, b.high - b.value),
        gap + math.hypot(a.high - a.value, b.value - b.low),
    )


def wilson(count: int, total: int, level: float = scores.LEVEL) -> scores.Estimate:
    """Estimates a share with Wilson's score interval of 1927."""
    from scipy.special import ndtri

    z = float(ndtri((1 + level) / 2))
    share, middle = count / total, (count + z * z / 2) / (total + z * z)
    half = z / (total + z * z) * math.sqrt(total * share * (1 - share) + z * z / 4)
    return scores.Estimate(share, max(0.0, middle - half), min(1.0, middle + half))
