"""A whole job in pieces of some minutes: what is done is not done again, distilling resumes.

A step of `benchmarks.gpu`. The stages are the commands of `gxdistill`, in processes of their own.
"""

import json
import sys
import time
from pathlib import Path

from benchmarks import child, main_job
from benchmarks.gpu_context import Context, SkippedError, UnfinishedError
from benchmarks.record import ROOT
from gxdistill.errors import UserError

_STAGES = ("distill", "train", "evaluate")


class Spent:
    """Seconds that a job took in all its pieces, kept in a file; a kill loses the last second."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._before = json.loads(path.read_text()) if path.exists() else 0.0
        self._began = self._written = time.monotonic()

    @property
    def seconds(self) -> float:
        """Of all pieces, this one included."""
        return self._before + time.monotonic() - self._began

    def write(self) -> None:
        """Keeps them, once a second."""
        if time.monotonic() - self._written >= 1:
            self._written = time.monotonic()
            self._path.with_suffix(".part").write_text(json.dumps(self.seconds))
            self._path.with_suffix(".part").replace(self._path)


def advance(context: Context, config: str) -> None:
    """Goes on with a job until it is evaluated, and records its figures then.

    Args:
      context: of the step.
      config: name of a file in `configs/` and variant.

    Raises:
      SkippedError: the digits are asked for, and no folder holds them.
      UnfinishedError: the time did not suffice.
      UserError: a stage failed.
    """
    name, _, variant = config.partition(":")
    flags = [f"--config={ROOT}/configs/{name}.py:{variant}"]
    if name == "mnist":
        if context.data is None or not (context.data / "mnist").is_dir():
            raise SkippedError("needs the digits: --data=FOLDER with the folder mnist in it")
        flags.append(f"--config.data.path={context.data.absolute() / 'mnist'}")
    workdir = (context.out / "runs" / config.replace(":", "_")).absolute()
    workdir.mkdir(parents=True, exist_ok=True)
    spent = Spent(workdir / "spent.json")
    for stage in _STAGES:
        _run(context, [stage, *flags, f"--workdir={workdir}"], workdir / f"{stage}.done", spent)
    evaluation = json.loads((workdir / "evaluation.json").read_text())
    for case, rows in main_job.figures(evaluation, spent.seconds).items():
        context.add(case, *rows)


def _run(context: Context, arguments: list[str], done: Path, spent: Spent) -> None:
    """Runs a stage, unless it is done."""
    if done.exists():
        return
    stage, log = arguments[0], context.log(arguments[0])
    if context.seconds <= 0:
        raise UnfinishedError(f"{stage} is next")
    command = [sys.executable, "-m", "gxdistill", *arguments]
    status = child.run(command, seconds=context.seconds, log=log, while_running=spent.write)
    if status is None:
        raise UnfinishedError(f"{stage}: {_last(log)}")
    if status != 0:
        raise UserError(f"{stage} ended with status {status}: {_last(log)}")
    done.touch()


def _last(log: Path) -> str:
    lines = log.read_text("utf-8", errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "it said nothing")
