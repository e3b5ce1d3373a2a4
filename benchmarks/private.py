r"""What privacy costs: the main job of a private config for several epsilons, recorded and drawn.

    python -m benchmarks.private --config=configs/mnist.py:private --workdir=runs/mnist_private \
        --seeds=3 --record
    python -m benchmarks.private --config=configs/radiograph.py:private --epsilons 1 2 4 8 100 \
        --workdir=runs/radiograph_private --beside=configs/radiograph.py:random --seeds=3 --record
    python -m benchmarks.private --draw    # plots/epsilon_against_*.svg of what is recorded

A figure is named by its epsilon: `accuracy_eps1`, `auc_eps8`; 100, the largest that is accounted
for, promises nothing, and stands for no noise. `hm_share_eps8` is the harmonic mean of sensitivity
and specificity over that of the package of `--beside`, which has no guarantee. Each seed has noise
of its own, which is drawn from the system, and cannot be had again.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import curves, main_job
from benchmarks.record import RESULTS, ROOT, Figure, Measured, Recorder, read
from gxdistill.errors import UserError
from gxdistill.pytrees import Metadata

PLOTS = ROOT / "benchmarks/plots"
EPSILONS = (1, 2, 4, 8, 10, 100)
CASES = {"mnist_private": ("accuracy", "accuracy"), "radiograph_private": ("auc", "AUC")}
_NONE = 100  # Stands for no noise.
_ALONE = "--config.evaluate.baselines=none"  # They know no epsilon.


def figures(evaluations: Sequence[Metadata], epsilon: int) -> list[Measured]:
    """Lists the figures of an epsilon, each the mean over runs that differ by their noise."""
    rows = []
    for name in ("accuracy", "auc", "hm"):
        values = [value for e in evaluations if (value := _value(e, name)) is not None]
        if values:
            rows.append(_mean(f"{name}_eps{epsilon}", values))
    largest = max(e["package_bytes"] for e in evaluations)
    return [*rows, Measured(f"package_bytes_eps{epsilon}", largest, unit="B")]


def _value(evaluation: Metadata, name: str) -> float | None:
    part = evaluation["contenders"]["distilled"]
    figure = part.get(name) or part.get("images", {}).get(name)
    return None if figure is None else float(figure["mean"])


def _mean(metric: str, values: Sequence[float]) -> Measured:
    if len(values) == 1:
        return Measured(metric, values[0])
    return Measured(metric, statistics.fmean(values), statistics.stdev(values), len(values))


def shares(private: Sequence[Metadata], beside: Sequence[Metadata], epsilon: int) -> Measured:
    """Compares harmonic means with those of packages without a guarantee."""
    ours, theirs = ([_value(e, "hm") or 0.0 for e in runs] for runs in (private, beside))
    return _mean(f"hm_share_eps{epsilon}", [hm / statistics.fmean(theirs) for hm in ours])


def plot(case: str, recorded: Sequence[Figure], folder: Path) -> Path:
    """Draws the figure of a case against epsilon.

    Args:
      case: one of `CASES`.
      recorded: figures in the order in which they were measured; the latest counts.
      folder: where the picture goes.

    Returns:
      The picture, SVG.

    Raises:
      UserError: none is recorded.
    """
    metric, words = CASES[case]
    known = curves.over_epsilons(recorded, case, metric)
    marks = ["no noise" if epsilon == _NONE else str(epsilon) for epsilon in known]
    path = folder / f"epsilon_against_{metric}_{case}.svg"
    title = f"{case}: {words} of networks trained on the package"
    curves.draw(path, list(known.values()), marks, "epsilon", title)
    return path


def _measure(arguments: argparse.Namespace, recorder: Recorder) -> None:
    def runs(config: str, name: str, *changes: str) -> list[Metadata]:
        folder = arguments.workdir / name
        return [
            main_job.run(config, folder / f"seed{seed}", seed, (_ALONE, *changes))[0]
            for seed in range(arguments.seeds)
        ]

    beside = runs(arguments.beside, "beside") if arguments.beside else None
    for epsilon in arguments.epsilons:
        flag = f"--config.privacy.epsilon={float(epsilon)}"
        evaluations = runs(arguments.config, f"eps{epsilon}", flag)
        rows = figures(evaluations, epsilon)
        rows += [shares(evaluations, beside, epsilon)] if beside else []
        case = evaluations[0]["name"]
        recorder.add(case, *rows)
        for row in rows:
            print(f"{case} {row.metric}: {row.value:.4g} (n = {row.n})", flush=True)


def main() -> None:
    """Runs, prints and records; or draws."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config")
    parser.add_argument("--workdir", type=Path)
    parser.add_argument("--beside", help="config of a package without a guarantee")
    parser.add_argument("--epsilons", type=int, nargs="+", default=EPSILONS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--draw", action="store_true", help="draws what is recorded")
    Recorder.add_flags(parser)
    arguments = parser.parse_args()
    if arguments.draw:
        try:
            for case in CASES:
                print(plot(case, read(RESULTS), PLOTS))
        except UserError as error:
            sys.exit(f"benchmarks.private: {error}")
        return
    if not arguments.config or not arguments.workdir:
        parser.error("--config and --workdir are needed, or --draw")
    main_job.check_fresh(arguments.workdir)
    _measure(arguments, Recorder("private", arguments))


if __name__ == "__main__":
    main()
