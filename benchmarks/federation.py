r"""What hospitals gain by learning together, and what it costs to hide them or their patients.

    python -m benchmarks.federation --config=configs/federation.py:hippocampus --seeds=3 \
        --workdir=runs/federation_hippocampus --record
    python -m benchmarks.federation --config=configs/federation.py:hippocampus --seeds=3 \
        --workdir=runs/feddp --epsilons 1 2 4 8 16 100 --record   # Dice over epsilon
    python -m benchmarks.federation --draw                        # of what is recorded

Each is `gxdistill federate simulate`, and its figures are those of test patients. Losses are in
points: of the federation against all patients in one place, and of each federation with noise
against the one without. With `--epsilons`, patients alone are hidden, at each of these epsilons.
An epsilon above 100 is not accounted for, and has no row: such noise promises nothing.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import curves
from benchmarks.main_job import PROGRAM, check_fresh, over_seeds
from benchmarks.record import RESULTS, ROOT, Figure, Measured, Recorder, read
from gxdistill.errors import UserError
from gxdistill.pytrees import Metadata

EPSILONS = (1, 2, 4, 8, 16, 100)
VARIANTS = ("monuseg", "hippocampus")
CASES = tuple(f"federation_{variant}" for variant in VARIANTS)
_METRICS = ("dice", "jaccard", "accuracy")
_UNITS = ("site", "patient")
SHOWN = (
    *("dice_alone", "dice_alone_best", "dice_central", "dice_federated", "federated_loss"),
    *(f"{metric}_loss_{unit}" for unit in _UNITS for metric in _METRICS),
    *(f"epsilon_{unit}" for unit in _UNITS),
    "bytes_a_round",
)
_PLOT = ROOT / "benchmarks/plots/epsilon_against_dice_feddp.svg"


def run(config: str, workdir: Path, seed: int, changes: Sequence[str] = ()) -> Metadata:
    """Simulates a federation; returns what `federation.json` says."""
    flags = [f"--config={config}", f"--workdir={workdir}", f"--config.seed={seed}", *changes]
    subprocess.run([PROGRAM, "federate", "simulate", *flags], check=True)
    told: Metadata = json.loads((workdir / "federation.json").read_text())
    return told


def figures(told: Metadata) -> list[Measured]:
    """Lists the figures of a simulation; losses in points."""
    rows = told["contenders"]
    plain = rows["federated"]
    alone = [row["dice"] for name, row in rows.items() if name.startswith("alone/")]
    figures = [Measured("dice_federated", plain["dice"])]
    if alone:
        figures += [Measured("dice_alone", statistics.fmean(alone))]
        figures += [Measured("dice_alone_best", max(alone))]
    if central := rows.get("central"):
        figures += [Measured("dice_central", central["dice"])]
        figures += [_loss("federated_loss", central["dice"], plain["dice"])]
    for unit in _UNITS:
        if private := rows.get(unit):
            figures += [Measured(f"dice_{unit}", private["dice"])]
            figures += [_loss(f"{m}_loss_{unit}", plain[m], private[m]) for m in _METRICS]
            if private["epsilon"] is not None:
                figures += [Measured(f"epsilon_{unit}", private["epsilon"])]
    return [*figures, Measured("bytes_a_round", plain["bytes_a_round"], unit="B")]


def _loss(metric: str, without: float, private: float) -> Measured:
    return Measured(metric, 100 * (without - private), unit="points")


def at_epsilons(config: str, workdir: Path, seed: int, epsilons: Sequence[int]) -> list[Measured]:
    """Hides patients at each epsilon, and lists Dice as `dice_eps8`."""
    rows = []
    for epsilon in epsilons:
        told = run(
            config,
            workdir / f"eps{epsilon}",
            seed,
            (
                *("--config.federation.alone=false", "--config.federation.central=false"),
                # The federation without noise is measured by the other command.
                *("--config.federation.protect=patient,", "--config.federation.rounds=1"),
                f"--config.federation.patient.epsilon={float(epsilon)}",
            ),
        )
        rows.append(Measured(f"dice_eps{epsilon}", told["contenders"]["patient"]["dice"]))
    return rows


def plot(recorded: Sequence[Figure], path: Path) -> None:
    """Draws Dice against the epsilon of patients.

    Raises:
      UserError: none is recorded.
    """
    known = curves.over_epsilons(recorded, "feddp", "dice")
    title = "hippocampus: Dice of a federation that hides patients"
    curves.draw(path, list(known.values()), list(map(str, known)), "epsilon", title)


def main() -> None:
    """Runs, prints and records; or draws."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config")
    parser.add_argument("--workdir", type=Path)
    parser.add_argument("--seeds", type=int, default=1, help="number of runs; default 1")
    parser.add_argument("--epsilons", type=int, nargs="+", help="of patients, and nothing else")
    parser.add_argument("--draw", action="store_true", help="draws what is recorded")
    Recorder.add_flags(parser)
    arguments = parser.parse_args()
    if arguments.draw:
        try:
            plot(read(RESULTS), _PLOT)
        except UserError as error:
            sys.exit(f"benchmarks.federation: {error}")
        return
    if not arguments.config or not arguments.workdir:
        parser.error("--config and --workdir are needed, or --draw")
    check_fresh(arguments.workdir)
    recorder, config = Recorder("federation", arguments), arguments.config
    case = "feddp" if arguments.epsilons else f"federation_{config.partition(':')[2] or 'monuseg'}"
    runs = []
    for seed in range(arguments.seeds):
        folder = arguments.workdir / f"seed{seed}"
        if arguments.epsilons:
            runs.append(at_epsilons(config, folder, seed, arguments.epsilons))
        else:
            runs.append(figures(run(config, folder, seed)))
    rows = over_seeds(runs)
    recorder.add(case, *rows)
    for row in rows:
        print(f"{case} {row.metric}: {row.value:.4g} (n = {row.n})")


if __name__ == "__main__":
    main()
