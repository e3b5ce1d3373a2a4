"""One step of ours beside the same algorithm in eager PyTorch, measured in turn.

    python -m benchmarks.against_torch --rounds=3 --repeats=9 --record

needs `pip install -e '.[torch]'`. Each measurement is a process of its own, on one processor:
`benchmarks.outer_step`, then `benchmarks.torch_peer`, in the next round the other way round, so
that whatever else the machine does meets both; of rows "unet", `benchmarks.unet_step` and
`benchmarks.torch_unet`. A figure is the median over the rounds of the median CPU seconds of a step,
or the largest peak of memory; a ratio below 1 is in our favour. Ours
takes its program from a cache, as a job does from its second start on; what the first start costs,
the compiler's memory included, is told apart.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.record import ROOT, Measured, Recorder

Figures = Mapping[str, float]

_OUTER_STEP = ("outer_step", "torch_peer")  # Modules: ours, and theirs.
_UNET_STEP = ("unet_step", "torch_unet")


class Row(NamedTuple):
    """What is compared.

    Attributes:
      name: of the row.
      flags: of both sides.
      ours: flags of ours alone.
      modules: what measures ours, and theirs.
    """

    name: str
    flags: Mapping[str, object]
    ours: Mapping[str, object] = {}
    modules: tuple[str, str] = _OUTER_STEP


CONVNET: dict[str, Any] = {
    "network": "convnet",
    "width": 128,
    "steps": 20,
    "epochs": 1,
    "batch": 256,
}
_WINDOW = {**CONVNET, "steps": 40, "window": 20}
_NESTED = {"memory": "nested"}
ROWS = (
    *(Row(f"lenet_{s}x{e}", {"steps": s, "epochs": e}) for s, e in ((1, 1), (10, 3), (30, 3))),
    *(Row(f"lenet_{s}x3_networks4", {"steps": s, "epochs": 3, "networks": 4}) for s in (10, 30)),
    Row("lenet_100x3", {"steps": 100, "epochs": 3}),
    *(Row(f"lenet_10x{e}_nested", {"steps": 10, "epochs": e}, _NESTED) for e in (3, 30)),
    Row("convnet128_20x1", CONVNET),
    Row("convnet128_20x1_bfloat16", CONVNET, {"dtype": "bfloat16"}),
    Row("convnet128_40x1_window20", _WINDOW),
    Row("convnet128_40x1_window20_bfloat16", _WINDOW, {"dtype": "bfloat16"}),
    Row("unet16", {"width": 16, "image-size": 128}, modules=_UNET_STEP),
    Row("unet32", {"width": 32, "image-size": 128}, modules=_UNET_STEP),
    Row("unet32_small", {"width": 32, "image-size": 48, "batch": 32}, modules=_UNET_STEP),
)
UNITS = {
    "cpu_s": "s",
    "torch_cpu_s": "s",
    "cpu_ratio": "1",
    "peak_rss_mb": "MiB",
    "torch_peak_rss_mb": "MiB",
    "rss_ratio": "1",
    "first_compile_s": "s",
    "first_peak_rss_mb": "MiB",
    "next_compile_s": "s",
}


def _measured(module: str, flags: Mapping[str, object], cache: Path, *, ours: bool) -> Figures:
    command = [sys.executable, "-m", f"benchmarks.{module}", "--threads=1"]
    command += [f"--{name}={value}" for name, value in flags.items()]
    command += ["--cached"] * ours
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def compare(row: Row, *, rounds: int, repeats: int) -> dict[str, float]:
    """Measures both sides of a row in turn.

    Args:
      row: what to compare.
      rounds: processes of each side, beside the one that compiles.
      repeats: timed steps of each process.

    Returns:
      The figures, by the names of `UNITS`.
    """
    flags = {**row.flags, "repeats": repeats}
    ours, theirs = row.modules
    sides = [(ours, {**flags, **row.ours}), (theirs, flags)]
    found: dict[str, list[Figures]] = {ours: [], theirs: []}
    with tempfile.TemporaryDirectory() as cache:
        first = _measured(ours, {**flags, **row.ours, "repeats": 1}, Path(cache), ours=True)
        for turn in range(rounds):
            for module, own in sides if turn % 2 == 0 else reversed(sides):
                figures = _measured(module, own, Path(cache), ours=module == ours)
                found[module].append(figures)
    return summary(first, found[ours], found[theirs])


def summary(first: Figures, ours: Sequence[Figures], theirs: Sequence[Figures]) -> dict[str, float]:
    """Sums up a first start, and `[rounds]` figures of each side, by the names of `UNITS`."""
    cpu, torch_cpu = (statistics.median(f["median_cpu_s"] for f in side) for side in (ours, theirs))
    rss, torch_rss = (max(f["peak_rss_mb"] for f in side) for side in (ours, theirs))
    return {
        "cpu_s": cpu,
        "torch_cpu_s": torch_cpu,
        "cpu_ratio": round(cpu / torch_cpu, 3),
        "peak_rss_mb": rss,
        "torch_peak_rss_mb": torch_rss,
        "rss_ratio": round(rss / torch_rss, 3),
        "first_compile_s": first["compile_s"],
        "first_peak_rss_mb": first["peak_rss_mb"],
        "next_compile_s": statistics.median(f["compile_s"] for f in ours),
    }


def main() -> None:
    """Measures, prints a JSON line a row, and with `--record` appends the figures."""
    names = [row.name for row in ROWS]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", nargs="+", choices=names, default=names)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=9)
    Recorder.add_flags(parser)
    arguments = parser.parse_args()
    if importlib.util.find_spec("torch") is None:
        sys.exit("benchmarks.against_torch: needs PyTorch; pip install -e '.[torch]'.")
    # Libraries ask for the processors when they are imported; what is started inherits them.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])
    for row in (row for row in ROWS if row.name in arguments.rows):
        recorder = Recorder("against_torch", arguments)
        figures = compare(row, rounds=arguments.rounds, repeats=arguments.repeats)
        print(json.dumps({"row": row.name, **figures}), flush=True)
        measured = (
            Measured(metric, value, n=arguments.rounds, unit=UNITS[metric])
            for metric, value in figures.items()
        )
        recorder.add(f"against_torch_{row.name}", *measured)


if __name__ == "__main__":
    main()
