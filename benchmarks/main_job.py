"""The main job from end to end, timed: distil, train, evaluate, report, each as a command.

    python -m benchmarks.main_job --config=configs/radiograph.py:known --workdir=runs/known --record

The figures are those of `evaluation.json`; `wall_s` is the time of all stages together, from
nothing compiled, installation apart. A run that was resumed is not recorded, for its time would be
too short. With `--seeds=3` the job is run for as many seeds, and a figure is the mean over them;
with `--at_once=2` two seeds are run beside each other, each on cores of its own. A case of its
own, NAME_shuffled, says what the distilled set does in ordinary training; `benchmarks.elsewhere`
what it does to networks of other kinds.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

from benchmarks.record import Measured, Recorder
from gxdistill.pytrees import Metadata
from gxdistill.tasks.distillation import sites

PROGRAM = str(Path(sys.executable).with_name("gxdistill"))
_Result = TypeVar("_Result")
_STAGES = ("distill", "train", "evaluate", "report")


def run(
    config: str, workdir: Path, seed: int | None = None, changes: Sequence[str] = ()
) -> tuple[Metadata, float]:
    """Runs the stages; with the config's own seed, where none is given.

    Args:
      config: as `--config` has it.
      workdir: a new folder.
      seed: in place of the config's.
      changes: flags that change other settings.

    Returns:
      The evaluation, and the wall seconds of all stages.
    """
    flags = [f"--config={config}", f"--workdir={workdir}"]
    flags += [*changes] if seed is None else [*changes, f"--config.seed={seed}"]
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as cache:  # as at a user's first start
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache}
        for stage in _STAGES:
            subprocess.run([PROGRAM, stage, *flags], env=environment, check=True)
    wall = time.monotonic() - began
    return json.loads((workdir / "evaluation.json").read_text()), wall


def beside(jobs: Sequence[Callable[[], _Result]], at_once: int) -> list[_Result]:
    """Does jobs, `at_once` beside each other, and each on cores of its own.

    Args:
      jobs: functions without arguments; commands that they start stay on their cores.
      at_once: 1 or more, at most as many as there are cores.

    Returns:
      The results, in the order of the jobs.

    Raises:
      Exception: what a job raised; jobs not begun by then are not done.
    """
    if at_once == 1:
        return [job() for job in jobs]
    parts: SimpleQueue[set[int]] = SimpleQueue()
    for part in core_parts(os.sched_getaffinity(0), at_once):
        parts.put(part)

    def keep_to_a_part() -> None:
        os.sched_setaffinity(0, parts.get())  # Of this thread alone.

    with ThreadPoolExecutor(at_once, initializer=keep_to_a_part) as workers:
        begun = [workers.submit(job) for job in jobs]
        try:
            return [job.result() for job in begun]
        finally:
            workers.shutdown(cancel_futures=True)


def core_parts(cores: set[int], count: int) -> list[set[int]]:
    """Parts cores in `count` sets of the same size, neighbours together; a rest is left out."""
    ordered, size = sorted(cores), len(cores) // count
    return [set(ordered[start * size : (start + 1) * size]) for start in range(count)]


def figures(evaluation: Metadata, wall_s: float) -> dict[str, list[Measured]]:
    """Lists the figures of a run by case; those of several networks with their spread."""
    case, contenders, shares = (evaluation[part] for part in ("name", "contenders", "shares"))
    distilled = contenders["distilled"]
    parts = {name: part.get("images", {}) for name, part in contenders.items()}
    summaries = [(name, distilled[name]) for name in ("accuracy", "balanced_patch_accuracy")]
    summaries += [(name, parts["distilled"].get(name)) for name in ("hm", "auc", "sen", "spe")]
    summaries.append(("hm_at_package_tau", distilled.get("at_package_tau", {}).get("hm")))
    for name, contender in contenders.items():
        if name != "distilled":
            summaries.append((f"balanced_{name}", contender["balanced_patch_accuracy"]))
            summaries += [(f"{metric}_{name}", parts[name].get(metric)) for metric in ("hm", "auc")]
            there = "ceiling" if name == "all_patches" else name
            summaries.append((f"external_auc_{there}", external(contender).get("external_auc")))
    summaries += external(distilled).items()
    # A figure is undefined where whole images are not decided, or all are undecidable.
    rows = [spread(name, figure) for name, figure in summaries if figure]
    rows += [
        Measured(f"{name}_share", shares[name])
        for name in ("hm", "auc")
        if shares.get(name) is not None
    ]
    if ceiling := external(contenders.get("all_patches", {})).get("external_auc"):
        ours = external(distilled)["external_auc"]
        rows.append(Measured("external_auc_share", ours["mean"] / ceiling["mean"]))
    rows.append(Measured("package_bytes", evaluation["package_bytes"], unit="B"))
    rows.append(Measured("wall_s", round(wall_s, 1), unit="s"))
    if "shuffled" not in contenders:  # Where no baselines are asked for.
        return {case: rows}
    shuffled = spread("accuracy", contenders["shuffled"]["accuracy"])
    return {case: rows, f"{case}_shuffled": [shuffled]}


def external(contender: Metadata) -> dict[str, Metadata]:
    """Names the figures of the site that nothing was learned from, where one was kept out.

    HM is that at the networks' own thresholds, and unlabelled at the one set on its images alone.
    """
    figures = sites.elsewhere(contender).items()
    return {f"external_{name}": figure for name, figure in figures if figure}


def check_fresh(workdir: Path) -> None:
    """Ends the command where its folder is there already."""
    if workdir.exists():
        sys.exit(f"{workdir} exists: a timed run starts afresh. Name another folder.")


def spread(metric: str, figure: Metadata) -> Measured:
    """Makes a row of a figure of several networks."""
    return Measured(metric, figure["mean"], figure["std"], figure["n"])


def over_seeds(runs: Sequence[list[Measured]]) -> list[Measured]:
    """Averages the figures of runs that differ by their seed; those that all of them have."""
    if len(runs) == 1:
        return runs[0]
    known = [{row.metric: row for row in rows} for rows in runs]
    shared = [row for row in runs[0] if all(row.metric in rows for rows in known)]
    return [
        Measured(name, statistics.fmean(values), statistics.stdev(values), len(values), unit)
        for name, *_, unit in shared
        for values in [[rows[name].value for rows in known]]
    ]


def main() -> None:
    """Runs, prints, and with `--record` appends the figures to the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True)
    parser.add_argument("--workdir", required=True, type=Path)
    parser.add_argument("--seeds", type=int, help="number of runs, with the seeds 0, 1, ...")
    parser.add_argument("--at_once", type=int, default=1, help="seeds beside each other; default 1")
    Recorder.add_flags(parser)
    arguments = parser.parse_args()
    if arguments.seeds is not None and arguments.seeds < 1:
        parser.error(f"--seeds is {arguments.seeds}; it must be 1 or more")
    # Not every system can keep threads to cores; one at a time needs none of it.
    if (count := arguments.at_once) != 1 and not 1 <= count <= len(os.sched_getaffinity(0)):
        parser.error(f"--at_once is {count}; it must be 1 or more, and at most a core for each")
    check_fresh(arguments.workdir)
    recorder = Recorder("main_job", arguments)
    config, workdir = arguments.config, arguments.workdir
    if arguments.seeds is None:
        runs = [run(config, workdir)]
    else:
        seeds = range(arguments.seeds)
        jobs = [partial(run, config, workdir / f"seed{seed}", seed) for seed in seeds]
        runs = beside(jobs, arguments.at_once)
    cases = [figures(*of_run) for of_run in runs]
    for case in cases[0]:
        rows = over_seeds([of_run[case] for of_run in cases])
        recorder.add(case, *rows)
        for metric, value, std, n, _ in rows:
            spread = "" if std is None else f" +- {std:.2g} (n = {n})"
            print(f"{case} {metric}: {value:.4g}{spread}")


if __name__ == "__main__":
    main()
