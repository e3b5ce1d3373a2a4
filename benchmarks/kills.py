"""Ends a job by signals at random moments, and holds what is resumed against an uninterrupted run.

  python -m benchmarks.kills --kill=200 --term=50 --int=50

Each round starts `distill` in a folder of its own and ends it again and again, each at a moment
drawn evenly over a start's length: imports, compilation, steps and checkpoints among them; every
second start compiles anew. After a few signals the run may end, and its package and history must be
those of the uninterrupted run, bit for bit. A SIGINT or SIGTERM must end in its status, one line
that says so, and no traceback. None is sent in Python's own start, before the program is there.
"""

import argparse
import collections
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONFIG = "--config=demo:smoke"
_STATUS = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}
_SIGNALS_A_ROUND = 5
_PYTHON_START = 0.4  # Seconds, by which the program handles signals, on a busy machine too.
# Jobs that a shell has put into the background ignore SIGINT, and their children with them.
_CODE = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from gxdistill.cli.main import main; main()"
)


def start(workdir: Path, *flags: str) -> subprocess.Popen[str]:
    """Starts `distill` in a folder."""
    command = [sys.executable, "-c", _CODE, "distill", CONFIG, f"--workdir={workdir}", *flags]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def results(workdir: Path) -> tuple[bytes, ...]:
    """Reads what must be equal."""
    return tuple((workdir / name).read_bytes() for name in ("package.gxd", "history.jsonl"))


def fault(number: signal.Signals, status: int, said: str) -> str | None:
    """Tells what is wrong with how a run ended."""
    if status not in (0, _STATUS[number]):
        return f"{number.name}: status {status}: {said}"
    if "Traceback" in said or "Fatal Python error" in said:
        return f"{number.name}: a traceback: {said}"
    lines = sum("; the same command" in line for line in said.splitlines())
    if number != signal.SIGKILL and status and lines != 1:
        return f"{number.name}: not one line: {said}"
    return None


def main() -> None:
    """Prints the counts, and every fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, count in (("kill", 200), ("term", 50), ("int", 50)):
        parser.add_argument(f"--{name}", type=int, default=count)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    waiting = [signal.SIGKILL] * options.kill + [signal.SIGTERM] * options.term
    waiting += [signal.SIGINT] * options.int
    rng.shuffle(waiting)
    counts: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as home:
        whole = Path(home, "whole")
        begun = time.monotonic()
        assert start(whole).wait() == 0
        spell = time.monotonic() - begun
        expected = results(whole)
        for turn in range(sys.maxsize):
            if not waiting:
                break
            workdir = Path(home, f"round-{turn}")
            for _ in range(min(_SIGNALS_A_ROUND, len(waiting))):
                number = waiting.pop()
                anew = ("--no-compile-cache",) * (rng.random() < 0.5)
                with start(workdir, *anew) as process:
                    time.sleep(rng.uniform(_PYTHON_START, 1.2 * spell))
                    process.send_signal(number)
                    assert process.stderr
                    said = process.stderr.read()
                wrong = fault(number, process.returncode, said)
                counts[f"{number.name} {'ended it' if process.returncode else 'came late'}"] += 1
                counts["wrong ends"] += wrong is not None
                if wrong:
                    print(wrong, flush=True)
            with start(workdir) as process:
                assert process.stderr
                said = process.stderr.read()
            equal = process.returncode == 0 and results(workdir) == expected
            counts["resumed equal" if equal else "resumed otherwise"] += 1
            if not equal:
                print(f"resumed: status {process.returncode}: {said}", flush=True)
            print(dict(counts), flush=True)
    sys.exit(counts["wrong ends"] + counts["resumed otherwise"] > 0)


if __name__ == "__main__":
    main()
