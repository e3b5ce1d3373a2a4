"""What is guaranteed to patients, in words: epsilon, delta, unit and adjacency, or nothing."""

import math

from gxdistill.package.fields import LedgerRecord

NONE = "no formal guarantee"
_MOST = 100  # A larger epsilon promises nothing.


def guarantee(ledger: LedgerRecord | None) -> str:
    """States what a package's ledger guarantees, as its sender says.

    Args:
      ledger: of the package; None for a package without one.

    Example:
      guarantee(package.load(path).manifest.ledger)  # "epsilon 8 at delta 0.001, unit: ..."
    """
    if ledger is None or ledger.epsilon is None:
        return NONE if ledger is None else f"{NONE}: epsilon is above {_MOST}"
    missing = "; not covered: " + ", ".join(ledger.uncovered) if ledger.uncovered else ""
    return (
        f"epsilon {rounded_up(ledger.epsilon)} at delta {ledger.delta:g}, unit: one "
        f"{ledger.unit}, adjacency: {ledger.adjacency.replace('_', ' ')} one{missing}"
    )


def rounded_up(epsilon: float) -> str:
    """Writes an epsilon with three digits, never less than it is."""
    if epsilon == 0 or math.isinf(epsilon):
        return "0" if epsilon == 0 else f"above {_MOST}"
    digits = 2 - math.floor(math.log10(epsilon))
    return f"{math.ceil(epsilon * 10**digits) / 10**digits:.3g}"
