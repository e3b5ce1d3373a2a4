"""How far plans are from measured steps, and the shares of a target's peaks that mend them.

    python -m benchmarks.plan_fit --target=cpu
    python -m benchmarks.plan_fit --target=h100     # once rows of `benchmarks.gpu` are merged

A plan's seconds are floors: at the peak of products, or of memory, whichever is longer. From the
newest rows of `benchmarks.accelerator` on the target, by what binds each of them, this takes the
middle of planned over measured seconds, between the lowest and the highest by their logarithms: no
other share brings the worst row nearer. It is what to write into the target's description under
`[efficiency]`, where a row is off by more than `TOLERANCE` times; the plan then says what it
expects beside its floors.
"""

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.record import RESULTS, Figure, read
from gxdistill.plan import targets

TOLERANCE = 1.5
_PRODUCTS, _MEMORY = "products", "memory"


class Row(NamedTuple):
    """A measured step beside its floors, in seconds.

    Attributes:
      case: of the figures.
      measured: of an outer step.
      floors: by what could bind it.
    """

    case: str
    measured: float
    floors: Mapping[str, float]

    @property
    def binding(self) -> str:
        """What binds the step by the plan."""
        return max(self.floors, key=lambda what: self.floors[what])

    def off(self, efficiency: Mapping[str, float]) -> float:
        """By how many times the plan is off, in either direction; 1 is right."""
        expected = max(s / efficiency.get(what, 1.0) for what, s in self.floors.items())
        return math.exp(abs(math.log(expected / self.measured)))


def rows_of(figures: Sequence[Figure], target: str) -> list[Row]:
    """Collects the newest rows of a target."""
    cases: dict[str, dict[str, float]] = {}
    for figure in figures:
        name = figure.case
        if name.startswith("accelerator_") and name.endswith(f"_{target.replace('-', '_')}"):
            cases.setdefault(name, {})[figure.metric] = figure.value
    rows = []
    for case, values in sorted(cases.items()):
        # Rows from before the roofline tell the floor of products by the share that was reached.
        products = values.get("products_s", values["utilisation"] * values["median_s"])
        memory = values.get("memory_s", values["planned_s"])
        rows.append(Row(case, values["median_s"], {_PRODUCTS: products, _MEMORY: memory}))
    return rows


def fit(rows: Sequence[Row]) -> dict[str, float]:
    """Finds the shares of the peaks, by what binds the rows; none where all are near enough."""
    if all(row.off({}) <= TOLERANCE for row in rows):
        return {}
    shares: dict[str, list[float]] = {}
    for row in rows:
        shares.setdefault(row.binding, []).append(row.floors[row.binding] / row.measured)
    return {what: math.sqrt(min(each) * max(each)) for what, each in shares.items()}


def main() -> None:
    """Prints how far each row is off, before and after, and what to write down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", required=True, choices=targets.NAMES)
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    rows = rows_of(read(given.results), given.target)
    if not rows:
        sys.exit(f"benchmarks.plan_fit: no step was measured on {given.target} yet.")
    efficiency = fit(rows)
    for row in rows:
        print(
            f"{row.case}: measured {row.measured:.3g} s, {row.binding} bound, off by "
            f"{row.off({}):.2f} times as a floor, {row.off(efficiency):.2f} as fitted"
        )
    if not efficiency:
        print(f"all within {TOLERANCE} times: nothing to correct")
        return
    print(f"\n[efficiency]  # python -m benchmarks.plan_fit --target={given.target}")
    for what, share in sorted(efficiency.items()):
        print(f"{what} = {share:.2f}")


if __name__ == "__main__":
    main()
