"""Numbers as whole ones modulo 2^64, whose sum is exact whatever its order.

A masked sum needs a group in which a uniform mask hides all; floats are none.
"""

import dataclasses

import numpy as np

from gxdistill import _check


@dataclasses.dataclass(frozen=True)
class FixedPoint:
    """How numbers from -bound to bound are written, such that a sum of so many cannot overflow.

    Attributes:
      sites: most numbers of a sum.
      bound: largest size of one of them.
      fraction_bits: a number is a whole multiple of 2^-fraction_bits.

    Raises:
      ValueError: a sum of `sites` numbers of size `bound` could overflow 64 bits.

    Example:
      form = FixedPoint(sites=4, bound=100.0)
      form.decode(sum(map(form.encode, updates)))
    """

    sites: int
    bound: float
    fraction_bits: int = 32

    def __post_init__(self) -> None:
        """Refuses what could overflow."""
        _check.positive(sites=self.sites, bound=self.bound, fraction_bits=self.fraction_bits)
        # Each is rounded by half a step at most.
        if self.sites * (self.bound * 2.0**self.fraction_bits + 1) >= 2.0**63:
            raise ValueError(
                f"A sum of {self.sites} numbers up to {self.bound} in steps of "
                f"2^-{self.fraction_bits} may overflow 64 bits. Lower `bound` or `fraction_bits`."
            )

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Writes numbers as uint64, rounded to the nearest step.

        Raises:
          ValueError: a number is larger than the bound, or none at all.
        """
        values = np.asarray(values, np.float64)
        if not (np.abs(values) <= self.bound).all():  # False of NaN
            raise ValueError(
                f"A number of an update is NaN or larger than the bound {self.bound}. Raise "
                f"`bound`, or clip the updates."
            )
        return np.rint(values * 2.0**self.fraction_bits).astype(np.int64).view(np.uint64)

    def decode(self, total: np.ndarray) -> np.ndarray:
        """Reads a sum modulo 2^64 of at most `sites` encoded numbers, as float64."""
        return total.view(np.int64).astype(np.float64) * 2.0**-self.fraction_bits
