"""Everything that is worth measuring on an accelerator, in some minutes and in order of worth.

    python -m benchmarks.gpu --minutes=8 --out=FOLDER --data=DATA     # on a machine with a GPU
    python -m benchmarks.gpu --minutes=10 --out=FOLDER --data=DATA    # goes on where it stopped
    python -m benchmarks.gpu --minutes=5 --out=FOLDER --scale=small   # a rehearsal, on a CPU

from the repository's root; nothing of the project need be installed, and no network is asked. DATA
is a folder with the folder `mnist` in it; without it the steps that need digits are skipped. Each
step is a process of its own, ends in time, and appends its figures to FOLDER/results as it finds
them; what a step prints is in FOLDER/logs. A step that failed or was skipped is tried again at the
next start, and a run that did not end goes on. Compiled programs are kept in FOLDER/cache. Where
the repository's files are there without git, `--commit` names their commit, unless `git archive`
wrote them. Back at home:

    python -m benchmarks.merge FOLDER && python -m benchmarks.tables

The figures of a rehearsal bear names that begin with `rehearsal_` and are not merged.
"""

import argparse
import importlib.util
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import child, merge, record
from benchmarks.gpu_steps import SKIPPED, UNFINISHED, steps
from gxdistill.errors import UserError


class Bounds(NamedTuple):
    """Seconds of a step.

    Attributes:
      least: without which it is not begun.
      most: after which it is ended.
    """

    least: float
    most: float


_BOUNDS = {
    "device": Bounds(5, 90),
    "tests": Bounds(20, 100),
    "precision": Bounds(20, 75),
    "gastric": Bounds(60, 180),
    "gastric_card_memory": Bounds(60, 180),
    "gastric_side_by_side": Bounds(60, 180),
    "torch_convnet128_40x1_window20": Bounds(40, 150),
    "torch_lenet_10x3": Bounds(40, 120),
}
_ENDING = 6.0  # Seconds that it may take to end a step.
# What each step needs, as Python and as pip calls it.
_WHEELS = {
    **{name: name for name in ("jax", "jaxlib", "flax", "optax", "ml_collections", "scipy")},
    "orbax": "orbax-checkpoint",
    "absl": "absl-py",
    "PIL": "pillow",
    "yaml": "PyYAML",
}
_RUN = Bounds(20, float("inf"))  # They resume.
_OUTER_STEP = Bounds(20, 60)
_WORDS = {0: "done", SKIPPED: "skipped", UNFINISHED: "unfinished", None: "out of time"}


def bounds(name: str, scale: str) -> Bounds:
    """Tells the seconds of a step; a rehearsal begins any step that has some seconds."""
    usual = _RUN if name.startswith("run_") else _BOUNDS.get(name, _OUTER_STEP)
    return usual if scale == "full" else usual._replace(least=5)


def environment(given: argparse.Namespace) -> dict[str, str]:
    """Lists the variables of all steps: where programs are kept, and what they are told."""
    cache = given.out / "cache"
    known = {
        "JAX_COMPILATION_CACHE_DIR": str(cache / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
        "PYTHONUNBUFFERED": "1",
    }
    if given.commit:
        known[record.COMMIT] = given.commit
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if platforms and "cpu" not in platforms.split(","):
        known["JAX_PLATFORMS"] = f"{platforms},cpu"  # Which errors are measured by.
    if given.data is not None:
        known["GXDISTILL_DATA"] = str(given.data)
    return known


def take(name: str, given: argparse.Namespace, seconds: float) -> str:
    """Takes a step in a process of its own.

    Args:
      name: of the step.
      given: the flags.
      seconds: that it may take.

    Returns:
      How it ended, in words.
    """
    command = [sys.executable, "-m", "benchmarks.gpu_steps", name, f"--out={given.out}"]
    command += [f"--seconds={seconds:.0f}", f"--scale={given.scale}", f"--price={given.price}"]
    command += [f"--data={given.data}"] if given.data is not None else []
    command += ["--trace"] if given.trace else []
    log, began = given.out / "logs" / f"{name}.log", time.monotonic()
    log.unlink(missing_ok=True)
    status = child.run(command, seconds=seconds, log=log, environment=environment(given))
    ended = _WORDS.get(status, f"failed with status {status}")
    took = f"{time.monotonic() - began:.0f} s"
    if status == 0:
        _mark(given.out / "done" / name)
    lines = log.read_text("utf-8", errors="replace").splitlines() if log.exists() else []
    for line in lines:
        if line.startswith('{"case"'):
            print(f"  {line}")
    last = "" if status == 0 or not lines else f": {lines[-1].split(': ', 1)[-1]}"
    return f"{ended} after {took}{last}"


def _mark(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def run(given: argparse.Namespace) -> None:
    """Takes the steps in order, as long as time is left.

    Raises:
      UserError: there is no accelerator, or not the one that was measured before.
    """
    until = time.monotonic() + 60 * given.minutes - _ENDING
    check_wheels()
    given.out.mkdir(parents=True, exist_ok=True)
    check_sources(given.out)
    check_device(given)
    for name in given.only or steps(given.scale):
        if name == "device":
            continue  # Taken at each start.
        if (given.out / "done" / name).exists():
            print(f"{name}: done before")
            continue
        left, (least, most) = until - time.monotonic(), bounds(name, given.scale)
        if left < least:
            print(f"{name}: not begun, {max(left, 0):.0f} s are left of {least:.0f} that it needs")
            continue
        print(f"{name}: at most {min(left, most):.0f} s", flush=True)
        print(f"{name}: {take(name, given, min(left, most))}", flush=True)


def check_wheels() -> None:
    """Names what is not installed.

    Raises:
      UserError: something is not.
    """
    missing = [wheel for name, wheel in _WHEELS.items() if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"needs {', '.join(missing)}. Without a network carry the wheels along: pip download "
            f"--no-deps {' '.join(missing)}, and there pip install --no-deps --no-index *.whl"
        )


def check_sources(out: Path) -> None:
    """Lists what is measured, where git is not there to tell whether it is the commit's.

    Raises:
      UserError: the folder's figures are those of other sources.
    """
    if (record.ROOT / ".git").exists():
        return
    path, now = out / "sources.json", merge.list_sources()
    if _read(path) not in (None, now):
        raise UserError(f"{out} has the figures of other sources. Name another folder.")
    path.write_text(json.dumps(now, indent=1) + "\n", "utf-8")


def check_device(given: argparse.Namespace) -> None:
    """Writes down the device that is there.

    Raises:
      UserError: it is none, or another one than before.
    """
    path = given.out / "device.json"
    before = _read(path)
    path.unlink(missing_ok=True)
    ended = take("device", given, bounds("device", given.scale).most)
    now = _read(path)
    if now is None:
        raise UserError(f"JAX does not start here; see {given.out / 'logs/device.log'}: {ended}")
    if now["platform"] == "cpu" and given.scale == "full":
        raise UserError(
            f"JAX sees no GPU or TPU here. A rehearsal on this CPU: python -m benchmarks.gpu "
            f"--minutes=5 --out={given.out} --scale=small"
        )
    if before is not None and before["name"] != now["name"]:
        path.write_text(json.dumps(before, indent=1) + "\n", "utf-8")
        raise UserError(
            f"{given.out} has the figures of {before['name']}, and this is {now['name']}. Name "
            f"another folder."
        )
    shown = ", ".join(f"{name} {version}" for name, version in now["versions"].items())
    print(f"device: {now['name']}, driver {now['driver']}; {shown}", flush=True)


def _read(path: Path) -> Mapping[str, Any] | None:
    return json.loads(path.read_text("utf-8")) if path.exists() else None


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=8.0, help="after which all ends")
    parser.add_argument("--out", type=Path, required=True, help="folder of all that is written")
    parser.add_argument("--data", type=Path, help="folder of the public data sets")
    parser.add_argument("--scale", choices=("full", "small"), default="full")
    parser.add_argument("--only", nargs="+", help="steps to take, in this order")
    parser.add_argument("--price", type=float, default=2.0, help="of a device for an hour")
    parser.add_argument("--trace", action="store_true", help="keep JAX's profile of each row")
    parser.add_argument("--commit", help="of the files, where git cannot tell")
    given = parser.parse_args()
    given.out = given.out.absolute()
    given.data = given.data and given.data.absolute()
    unknown = set(given.only or ()) - set(steps(given.scale))
    if unknown:
        parser.error(
            f"no steps: {', '.join(sorted(unknown))}; there are {', '.join(steps('full'))}"
        )
    return given


def main() -> None:
    """Measures as much as the time allows."""
    given = _flags()
    if given.commit:
        os.environ[record.COMMIT] = given.commit
    try:
        record.commit()  # Else each step would fail for want of it.
        run(given)
    except UserError as error:
        sys.exit(f"benchmarks.gpu: {error}")


if __name__ == "__main__":
    main()
