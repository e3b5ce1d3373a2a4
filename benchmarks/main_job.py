"""The main job from end to end, timed: distil, train, evaluate, report, each as a command.

    python -m benchmarks.main_job --config=configs/radiograph.py:known --workdir=runs/known --record

The figures are those of `evaluation.json`; `wall_s` is the time of all stages together, from
nothing compiled, installation apart. A run that was resumed is not recorded, for its time would be
too short. With `--seeds=3` the job is run for as many seeds, one after the other, and a figure is
the mean over them.
"""

import argparse
import json
import os
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.record import RESULTS, record
from gxdistill.pytrees import Metadata

_STAGES = ("distill", "train", "evaluate", "report")

# Metric, value, standard deviation, number of measurements, unit.
Row = tuple[str, float, float | None, int, str]


def run(config: str, workdir: Path, seed: int | None = None) -> tuple[Metadata, float]:
    """Runs the stages; with the config's own seed, where none is given.

    Returns:
      The evaluation, and the wall seconds of all stages.
    """
    flags = [f"--config={config}", f"--workdir={workdir}"]
    flags += [] if seed is None else [f"--config.seed={seed}"]
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as cache:  # as at a user's first start
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache}
        for stage in _STAGES:
            command = [str(Path(sys.executable).with_name("gxdistill")), stage, *flags]
            subprocess.run(command, env=environment, check=True)
    wall = time.monotonic() - began
    return json.loads((workdir / "evaluation.json").read_text()), wall


def figures(evaluation: Metadata, wall_s: float) -> list[Row]:
    """Lists metric, value, standard deviation, number of networks and unit."""
    contenders, shares = evaluation["contenders"], evaluation["shares"]
    distilled = contenders["distilled"]
    parts = {name: part.get("images", {}) for name, part in contenders.items()}
    found = [(name, distilled[name]) for name in ("accuracy", "balanced_patch_accuracy")]
    found += [(name, parts["distilled"].get(name)) for name in ("hm", "auc", "sen", "spe")]
    found.append(("hm_at_package_tau", distilled.get("at_package_tau", {}).get("hm")))
    for name, contender in contenders.items():
        if name != "distilled":
            found.append((f"balanced_{name}", contender["balanced_patch_accuracy"]))
            found += [(f"{metric}_{name}", parts[name].get(metric)) for metric in ("hm", "auc")]
    # A figure is undefined where whole images are not decided, or all are undecidable.
    rows: list[Row] = [
        (name, figure["mean"], figure["std"], figure["n"], "1") for name, figure in found if figure
    ]
    rows += [
        (f"{name}_share", shares[name], None, 1, "1")
        for name in ("hm", "auc")
        if shares.get(name) is not None
    ]
    rows.append(("package_bytes", evaluation["package_bytes"], None, 1, "B"))
    return [*rows, ("wall_s", round(wall_s, 1), None, 1, "s")]


def over_seeds(runs: Sequence[list[Row]]) -> list[Row]:
    """Averages the figures of runs that differ by their seed; those that all of them have."""
    if len(runs) == 1:
        return runs[0]
    known = [{row[0]: row for row in rows} for rows in runs]
    shared = [row for row in runs[0] if all(row[0] in rows for rows in known)]
    return [
        (name, statistics.fmean(values), statistics.stdev(values), len(values), unit)
        for name, *_, unit in shared
        for values in [[rows[name][1] for rows in known]]
    ]


def main() -> None:
    """Runs, prints, and with `--record` appends the figures to the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True)
    parser.add_argument("--workdir", required=True, type=Path)
    parser.add_argument("--seeds", type=int, help="number of runs, with the seeds 0, 1, ...")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where --record appends")
    arguments = parser.parse_args()
    if arguments.seeds is not None and arguments.seeds < 1:
        parser.error(f"--seeds is {arguments.seeds}; it must be 1 or more")
    if arguments.workdir.exists():
        sys.exit(f"{arguments.workdir} exists: a timed run starts afresh. Name another folder.")
    if arguments.seeds is None:
        runs = [run(arguments.config, arguments.workdir)]
    else:
        seeds = range(arguments.seeds)
        runs = [run(arguments.config, arguments.workdir / f"seed{s}", s) for s in seeds]
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = shlex.join(["python", "-m", "benchmarks.main_job", *sys.argv[1:]])
    for metric, value, std, count, unit in over_seeds([figures(*one) for one in runs]):
        print(f"{metric}: {value:.4g}" + ("" if std is None else f" +- {std:.2g} (n = {count})"))
        if arguments.record:
            record(
                runs[0][0]["name"],
                metric,
                value,
                std=std,
                n=count,
                unit=unit,
                command=command,
                cpu_s=used.ru_utime + used.ru_stime,
                wall_s=sum(wall for _, wall in runs),
                folder=arguments.results,
            )


if __name__ == "__main__":
    main()
