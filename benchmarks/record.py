"""Figures as JSON lines: each with the command, the commit and the device that made it.

The command that measures a figure appends it here itself; nothing is filled in by hand or by
estimate, and a missed target is recorded like any other.
"""

import argparse
import dataclasses
import datetime
import json
import math
import os
import platform
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import jax

from gxdistill.errors import UserError
from gxdistill.runtime import environment

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"
EXPORTED = "benchmarks/commit.txt"  # File in which `git archive` names the commit.
COMMIT = "GXDISTILL_COMMIT"  # Variable that names the commit where there is no git.

# What a figure can depend on; the figures themselves and the pages that show them are not.
SOURCES = ("benchmarks", "configs", "gxdistill", "constraints.txt", "pyproject.toml")
NOT_SOURCES = ("benchmarks/results", "benchmarks/plots", "*.md")


@dataclasses.dataclass(frozen=True)
class Figure:
    """One measured figure: one line of `benchmarks/results/<case>.jsonl`.

    Attributes:
      case: name of the config or benchmark, and of the file.
      metric: what was measured.
      value: the figure, or its mean over `n`.
      std: standard deviation over `n`; None where there is none.
      n: how many measurements (seeds, networks) stand behind `value`.
      unit: of `value` and `std`; "1" for shares.
      command: what to type to measure it again.
      commit: of the code, with "+dirty" where the sources held changes beside it.
      device: "CPU: " and model and cores, or the accelerator's name and number.
      jax: version.
      cpu_s: processor seconds of the command.
      wall_s: seconds of the command by the clock.
      date: UTC, ISO 8601.

    Raises:
      ValueError: a field has the wrong type or an impossible value.
    """

    case: str
    metric: str
    value: float
    std: float | None
    n: int
    unit: str
    command: str
    commit: str
    device: str
    jax: str
    cpu_s: float
    wall_s: float
    date: str

    def __post_init__(self) -> None:
        for name in ("case", "metric"):
            if not re.fullmatch(r"[a-z0-9_]+", str(getattr(self, name))):
                _refuse(self, name, "must consist of a-z, 0-9 and _")
        for name in ("unit", "command", "commit", "device", "jax", "date"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                _refuse(self, name, "must be a text that is not empty")
        for name in ("value", "cpu_s", "wall_s", "std"):
            value = getattr(self, name)
            if not _is_number(value) and not (name == "std" and value is None):
                _refuse(self, name, "must be a finite Python number")
            if name != "value" and value is not None and value < 0:
                _refuse(self, name, "must not be negative")
        if type(self.n) is not int or self.n < 1:
            _refuse(self, "n", "must be an integer of at least 1")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and type(value) is not bool and math.isfinite(value)


def _refuse(figure: Figure, name: str, reason: str) -> NoReturn:
    raise ValueError(f"`{name}` is {getattr(figure, name)!r}; it {reason}.")


def _git(*args: str) -> str:
    command = ["git", *args]
    try:
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(
            f"a figure needs the commit of its code, but git failed in {ROOT}: {error}. "
            f"Record figures in a git checkout, in what `git archive` took of it, or with the "
            f"commit in {COMMIT}."
        ) from error
    return run.stdout.strip()


def commit() -> str:
    """Names the commit: as git does, or of a folder without git, as it was told."""
    told = os.environ.get(COMMIT) or _exported()
    if told and not (ROOT / ".git").exists():
        return told
    excluded = (f":(exclude){pattern}" for pattern in NOT_SOURCES)
    changes = _git("status", "--porcelain", "--", *SOURCES, *excluded)
    return _git("rev-parse", "--short=12", "HEAD") + ("+dirty" if changes else "")


def _exported() -> str | None:
    """Reads what `git archive` wrote of the commit that it took."""
    path = ROOT / EXPORTED
    text = path.read_text("ascii").strip() if path.exists() else ""
    return text[:12] if re.fullmatch("[0-9a-f]{40}", text) else None


def _cpu() -> str:
    try:
        names = re.findall(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    except OSError:
        names = []
    name = names[0] if names else platform.processor() or platform.machine()
    cores = environment.usable_cores()
    return f"CPU: {name}, {cores} {'core' if cores == 1 else 'cores'}"


def device_name() -> str:
    """Names what JAX computes on, as figures do."""
    devices = jax.devices()
    if devices[0].platform == "cpu":
        return _cpu()
    return devices[0].device_kind + (f" x {len(devices)}" if len(devices) > 1 else "")


def record(
    case: str,
    metric: str,
    value: float,
    *,
    std: float | None = None,
    n: int = 1,
    unit: str,
    command: str,
    cpu_s: float,
    wall_s: float,
    folder: Path = RESULTS,
    device: str | None = None,
) -> Figure:
    """Appends one figure to `<folder>/<case>.jsonl`, with commit, device, version and date.

    Args:
      case: name of the config or benchmark: a-z, 0-9 and _.
      metric: what was measured: a-z, 0-9 and _.
      value: the figure, or its mean over `n`.
      std: standard deviation over `n`.
      n: how many measurements stand behind `value`.
      unit: of `value` and `std`; "1" for shares.
      command: what to type to measure it again.
      cpu_s: processor seconds of the command.
      wall_s: seconds of the command by the clock.
      folder: where the lines lie.
      device: that was measured, where another process holds it; None asks JAX.

    Returns:
      The figure as written.

    Raises:
      ValueError: an argument has the wrong type or an impossible value; nothing is written.
      UserError: nothing tells the commit of the code; nothing is written.
    """
    figure = Figure(
        case=case,
        metric=metric,
        value=value,
        std=std,
        n=n,
        unit=unit,
        command=command,
        commit=commit(),
        device=device or device_name(),
        jax=jax.__version__,
        cpu_s=round(cpu_s, 2),
        wall_s=round(wall_s, 2),
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    line = json.dumps(dataclasses.asdict(figure)) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{case}.jsonl").open("a", encoding="utf-8") as file:
        file.write(line)
    return figure


def case_of(name: str, setting: Any, named: int = 0) -> str:
    """Names a benchmark's case by what of its setting is not as usual.

    Args:
      name: of the benchmark, with the setting's first fields where it tells them.
      setting: a dataclass.
      named: number of those fields.
    """
    for field in dataclasses.fields(setting)[named:]:
        value = getattr(setting, field.name)
        if value != field.default:
            name += f"_{field.name}{value}"
    return name


class Measured(NamedTuple):
    """A figure as a benchmark finds it; its fields are those of a `Figure`."""

    metric: str
    value: float
    std: float | None = None
    n: int = 1
    unit: str = "1"


@dataclasses.dataclass(frozen=True)
class Recorder:
    """Appends what a command measures, if it is given `--record`.

    Seconds count from when it is made: those of this process, and of all it started and waited for.

    Attributes:
      module: of this folder, whose command runs.
      given: its flags, those of `add_flags` among them.
    """

    module: str
    given: argparse.Namespace
    _began: os.times_result = dataclasses.field(default_factory=os.times)

    @staticmethod
    def add_flags(parser: argparse.ArgumentParser) -> None:
        """Adds the flags that a recorder reads."""
        parser.add_argument("--record", action="store_true", help="append what is measured")
        parser.add_argument("--results", type=Path, default=RESULTS, help="where --record appends")

    def add(self, case: str, *rows: Measured) -> None:
        """Appends figures that are there."""
        now = os.times()
        for row in rows if self.given.record else ():
            record(
                case,
                **row._asdict(),
                command=shlex.join(["python", "-m", f"benchmarks.{self.module}", *sys.argv[1:]]),
                cpu_s=sum(now[:4]) - sum(self._began[:4]),
                wall_s=now.elapsed - self._began.elapsed,
                folder=self.given.results,
            )


def _parse(line: str, case: str) -> Figure:
    values = json.loads(line)
    if not isinstance(values, dict):
        raise ValueError("it is no JSON object.")
    known = [field.name for field in dataclasses.fields(Figure)]
    if wrong := set(values) ^ set(known):
        raise ValueError(
            f"{', '.join(sorted(wrong))}: the keys must be exactly {', '.join(known)}."
        )
    figure = Figure(**values)
    if figure.case != case:
        raise ValueError(f"case {figure.case!r} belongs in {figure.case}.jsonl.")
    return figure


def read(folder: Path = RESULTS) -> list[Figure]:
    """Reads all figures, those of a case in the order in which they were measured.

    Raises:
      UserError: a line is malformed; the message names file and line.
    """
    figures = []
    for path in sorted(folder.glob("*.jsonl")):
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
            try:
                figures.append(_parse(line, path.stem))
            except ValueError as error:  # json's own error is one too
                raise UserError(
                    f"{path}:{number}: no figure: {str(error).rstrip('.')}. Remove the line."
                ) from error
    return figures
