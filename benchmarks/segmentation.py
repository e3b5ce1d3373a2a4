"""A segmentation job from end to end, timed: train, evaluate, report, each as a command.

    python -m benchmarks.segmentation --config=configs/segmentation.py:monuseg \
        --workdir=runs/nuclei --seeds=3 --record

The figures are those of `segmentation.json`, of the test images that nothing was chosen by; with
several seeds a figure is the mean over them, else over the images, or patients. `wall_s` is the
time of all stages, from nothing compiled.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.main_job import PROGRAM, check_fresh, over_seeds
from benchmarks.record import Measured, Recorder
from gxdistill.pytrees import Metadata

_STAGES = ("train", "evaluate", "report")
_PIXELS = ("hd95", "asd")


def run(config: str, workdir: Path, seed: int) -> tuple[Metadata, float]:
    """Runs the stages.

    Returns:
      The figures as `segmentation.json` has them, and the wall seconds of all stages.
    """
    flags = [f"--config={config}", f"--workdir={workdir}", f"--config.seed={seed}"]
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as cache:  # as at a user's first start
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache}
        for stage in _STAGES:
            subprocess.run([PROGRAM, "segment", stage, *flags], env=environment, check=True)
    wall_s = time.monotonic() - began
    return json.loads((workdir / "segmentation.json").read_text()), wall_s


def figures(told: Metadata, wall_s: float) -> list[Measured]:
    """Lists the figures of a run: of the mean over the classes, and the Dice of each."""
    rows = [_row(name, part) for name, part in told["mean"].items()]
    rows.append(_row("accuracy", told["accuracy"]))
    if len(told["classes"]) > 1:
        rows += [_row(f"dice_{name}", part["dice"]) for name, part in told["classes"].items()]
    return [*rows, Measured("wall_s", round(wall_s, 1), unit="s")]


def _row(metric: str, part: Metadata) -> Measured:
    unit = "px" if metric in _PIXELS else "1"
    return Measured(metric, part["mean"], part["std"], part["n"], unit)


def main() -> None:
    """Runs, prints, and with `--record` appends the figures to the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True)
    parser.add_argument("--workdir", required=True, type=Path)
    parser.add_argument("--seeds", type=int, default=1, help="number of runs; default 1")
    Recorder.add_flags(parser)
    arguments = parser.parse_args()
    if arguments.seeds < 1:
        parser.error(f"--seeds is {arguments.seeds}; it must be 1 or more")
    check_fresh(arguments.workdir)
    recorder = Recorder("segmentation", arguments)
    runs = [
        figures(*run(arguments.config, arguments.workdir / f"seed{seed}", seed))
        for seed in range(arguments.seeds)
    ]
    rows = over_seeds(runs)
    variant = arguments.config.partition(":")[2] or "monuseg"
    recorder.add(f"segmentation_{variant}", *rows)
    for metric, value, std, n, _ in rows:
        spread = "" if std is None else f" +- {std:.2g} (n = {n})"
        print(f"{metric}: {value:.4g}{spread}")


if __name__ == "__main__":
    main()
