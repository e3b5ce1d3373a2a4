"""Ours beside PyTorch on one device: eager, compiled, and on a GPU replayed as CUDA graphs.

A step of `benchmarks.gpu`. Each measurement is a process of its own, and the second round goes the
other way round. Seconds are those of the clock; products of float32 are those of TF32 on both
sides, where the device has it.
"""

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks import against_torch, child
from benchmarks.gpu_context import Context, UnfinishedError
from benchmarks.record import Measured

_ROUNDS = 2
_REPEATS = {"full": 25, "small": 3}
_SMALL = {"steps": 2, "epochs": 1, "batch": 32, "window": 0, "width": 8}
_OURS = "outer_step"

Figures = Mapping[str, float]


class Side(NamedTuple):
    """One of those that are compared.

    Attributes:
      name: in the metrics.
      module: that measures it.
      flags: of this side alone.
    """

    name: str
    module: str
    flags: Mapping[str, Any]


def sides(platform: str) -> list[Side]:
    """Lists what is compared on a platform, ours first."""
    device = {"device": "cuda" if platform == "gpu" else "cpu"}
    compiled = [Side("compiled", "torch_peer", {**device, "compiled": "default"})]
    graphs = [Side("graphs", "torch_peer", {**device, "compiled": "reduce-overhead"})]
    return [
        Side("ours", _OURS, {}),
        Side("eager", "torch_peer", device),
        *compiled,
        *(graphs if platform == "gpu" else []),
    ]


def flags_of(row: str, scale: str) -> dict[str, Any]:
    """Lists the flags that all sides share."""
    (known,) = (candidate for candidate in against_torch.ROWS if candidate.name == row)
    flags = {**known.flags, "repeats": _REPEATS[scale]}
    if scale == "full":
        return flags
    return {k: v for k, v in {**flags, **_SMALL}.items() if k != "width" or "width" in flags}


def compare(context: Context, row: str) -> None:
    """Measures all sides in turn, and records what is there after each round.

    Raises:
      UnfinishedError: not each side was measured once.
    """
    by_side: dict[str, list[Figures]] = {}
    flags = flags_of(row, context.scale)
    order = sides(context.device["platform"])
    for turn in range(_ROUNDS):
        for side in order if turn % 2 == 0 else reversed(order):
            figures = _measured(context, side, flags)
            if figures is not None:
                by_side.setdefault(side.name, []).append(figures)
        if "ours" in by_side:
            context.add(f"gpu_torch_{row}", *summary(by_side))
        if context.seconds < 0:
            break
    missing = [side.name for side in order if side.name not in by_side]
    if missing:
        raise UnfinishedError(f"no figure of {', '.join(missing)}; their logs tell why")


def _measured(context: Context, side: Side, flags: Mapping[str, Any]) -> Figures | None:
    command = [sys.executable, "-m", f"benchmarks.{side.module}"]
    command += [f"--{name}={value}" for name, value in {**flags, **side.flags}.items()]
    command += ["--cached"] * (side.module == _OURS)
    log = context.log(side.name)
    log.unlink(missing_ok=True)
    if context.seconds <= 0 or child.run(command, seconds=context.seconds, log=log) != 0:
        return None
    return last_figures(log.read_text("utf-8", errors="replace"))


def last_figures(text: str) -> Figures | None:
    """Reads the last line that is JSON; drivers may say something after it."""
    lines = [line for line in text.splitlines() if line.startswith("{")]
    figures: Figures | None = json.loads(lines[-1]) if lines else None
    return figures


def summary(by_side: Mapping[str, Sequence[Figures]]) -> list[Measured]:
    """Sums up the rounds of each side; a ratio below 1 is in our favour."""
    seconds = {
        name: statistics.median(figures["median_s"] for figures in rounds)
        for name, rounds in by_side.items()
    }
    rows = []
    for name, rounds in by_side.items():
        prefix = "" if name == "ours" else f"torch_{name}_"
        rows.append(Measured(f"{prefix}step_s", seconds[name], n=len(rounds), unit="s"))
        peaks = [figures["device_peak_mb"] for figures in rounds if "device_peak_mb" in figures]
        if peaks:
            rows.append(Measured(f"{prefix}peak_mb", max(peaks), n=len(peaks), unit="MB"))
        if name != "ours":
            rows.append(Measured(f"{name}_ratio", seconds["ours"] / seconds[name]))
    return rows
