"""Where the time of one outer step goes, as a table: by part of the step, and by operation.

    python -m benchmarks.profile_step --network=lenet --steps=10 --epochs=3 --record

Flags are those of `benchmarks.outer_step`. The step runs on one processor under JAX's profiler,
which times every operation of the compiled program; the program says what each comes from. What XLA
has fused into one operation counts for the last of its parts.
"""

import argparse
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import jax

from benchmarks import against_torch, outer_step
from benchmarks.outer_step import Setting
from benchmarks.record import Measured, Recorder
from gxdistill.pytrees import Network, Params

Key = TypeVar("Key")

# Scopes that are put around the network's functions, and where the time within them belongs.
_WEIGHTS, _REAL, _DISTILLED = "fresh_weights", "real_batch", "distilled_batch"
# The parts of a step, and the metrics that say how large they are.
SHARES = {
    "initial weights": "share_weights",
    "inner steps": "share_inner_steps",
    "inner steps, gradient": "share_inner_gradient",
    "real batch": "share_real",
    "real batch, gradient": "share_real_gradient",
    "update of the distilled data": "share_update",
    "XLA's own": "share_xla",
}
# Of which the README shows the shares.
SETTINGS = (
    Setting(),
    Setting(**against_torch.CONVNET),
    Setting(**against_torch.CONVNET, dtype="bfloat16"),
)
_PRODUCTS = ("dot_general", "conv_general_dilated")
_OPERATION = re.compile(r'^\s*(?:ROOT )?%?([\w.-]+) = .*metadata=\{.*?op_name="([^"]*)"', re.M)
_LAYER = re.compile(r"\b([A-Z][A-Za-z]*_\d+)\b")


class Spent(NamedTuple):
    """Time that one operation took by itself, without what it called.

    Attributes:
      operation: its name in the compiled program.
      seconds: in all its calls.
      calls: how often it ran.
    """

    operation: str
    seconds: float
    calls: int


def case_of(setting: Setting) -> str:
    """Names the case under which a profile is recorded."""
    return setting.case.replace("outer_step", "profile")


def scoped(network: Network, distilled: int) -> Network:
    """Marks what a network is asked for; `distilled` images at a time are distilled ones."""

    def init(key: jax.Array) -> Params:
        with jax.named_scope(_WEIGHTS):
            return network.init(key)

    def apply(params: Params, images: jax.Array) -> jax.Array:
        with jax.named_scope(_DISTILLED if len(images) == distilled else _REAL):
            return network.apply(params, images)

    return Network(init, apply)


def part(source: str) -> str:
    """Names the part of the outer step that an operation's source, a path of scopes, lies in."""
    if _WEIGHTS in source:
        return "initial weights"
    # A gradient is a transposed part.
    if _REAL in source:
        return "real batch, gradient" if "transpose(" in source else "real batch"
    if _DISTILLED in source or "/while/" in source:
        # That through the training comes before its loop, those it descends along come within.
        through = "transpose(" in re.split(r"\bwhile\b", source)[0]
        return "inner steps, gradient" if through else "inner steps"
    return "update of the distilled data"


def work(source: str) -> str:
    """Names layer and operation: the last layer of the path, and the path's last scope."""
    return " ".join([*_LAYER.findall(source)[-1:], source.rpartition("/")[2]])


def sources(program: str) -> Mapping[str, str]:
    """Finds the path of scopes that each operation of a compiled program comes from."""
    return dict(_OPERATION.findall(program))


def own_times(events: list[tuple[str, float, float]]) -> Iterator[tuple[str, float]]:
    """Takes from each event's time what the events within it took.

    Args:
      events: name, start and duration, of one thread.

    Yields:
      Name and own time of each event.
    """
    within: list[tuple[str, float, float]] = []  # name, end, own time so far
    for name, start, duration in sorted(events, key=lambda event: (event[1], -event[2])):
        while within and within[-1][1] <= start:
            yield within[-1][0], within.pop()[2]
        if within:
            parent, end, self_time = within[-1]
            within[-1] = (parent, end, self_time - duration)
        within.append((name, start + duration, duration))
    yield from ((name, self_time) for name, _, self_time in within)


def profile(compiled: jax.stages.Compiled, arguments: tuple, repeats: int) -> list[Spent]:
    """Runs a compiled program under the profiler; the first run is not counted."""
    jax.block_until_ready(compiled(*arguments))
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            for _ in range(repeats):
                jax.block_until_ready(compiled(*arguments))
        (path,) = Path(folder).rglob("*.xplane.pb")
        data = jax.profiler.ProfileData.from_file(str(path))
        seconds: dict[str, float] = defaultdict(float)
        calls: dict[str, int] = defaultdict(int)
        for line in (line for plane in data.planes for line in plane.lines):
            events = [
                (event.name, event.start_ns, event.duration_ns)
                for event in line.events
                if any(name == "hlo_op" for name, _ in event.stats)
            ]
            for name, own in own_times(events):
                seconds[name] += own / 1e9 / repeats
                calls[name] += 1
    return [Spent(name, seconds[name], calls[name] // repeats) for name in seconds]


def figures(spent: list[Spent], found: Mapping[str, str]) -> list[Measured]:
    """Lists the seconds of a step, the share of each part, and that of products over all parts."""
    total = sum(one.seconds for one in spent)
    rows = [_row(one.operation, found) for one in spent]
    parts = _added([name for name, _ in rows], spent)
    products = _added([doing.endswith(_PRODUCTS) for _, doing in rows], spent)[True]
    shares = [Measured(metric, parts[name] / total) for name, metric in SHARES.items()]
    return [
        Measured("step_s", total, unit="s"),
        *shares,
        Measured("share_products", products / total),
    ]


def tables(spent: list[Spent], found: Mapping[str, str], longest: int) -> str:
    """Lays the times out for people: by part, and the `longest` operations in them."""
    total = sum(one.seconds for one in spent)
    rows = [_row(one.operation, found) for one in spent]
    parts, works = _added([name for name, _ in rows], spent), _added(rows, spent)
    calls: dict[tuple[str, str], int] = defaultdict(int)
    for row, one in zip(rows, spent, strict=True):
        calls[row] += one.calls
    lines = ["| part | seconds | share |", "| --- | --- | --- |"]
    lines += [f"| {name} | {s:.4f} | {s / total:.1%} |" for name, s in _falling(parts)]
    lines += [f"| all | {total:.4f} | 100% |", ""]
    lines += ["| part | operation | calls | seconds | share |", "| --- | --- | --- | --- | --- |"]
    for row, s in _falling(works)[:longest]:
        lines.append(f"| {row[0]} | {row[1]} | {calls[row]} | {s:.4f} | {s / total:.1%} |")
    rest = sum(s for _, s in _falling(works)[longest:])
    lines.append(f"| | {max(0, len(works) - longest)} more | | {rest:.4f} | {rest / total:.1%} |")
    return "\n".join(lines)


def _row(operation: str, found: Mapping[str, str]) -> tuple[str, str]:
    if operation not in found:  # XLA's own: copies, for the most part
        return "XLA's own", operation.rstrip(".0123456789")
    return part(found[operation]), work(found[operation])


def _added(keys: Sequence[Key], spent: Sequence[Spent]) -> defaultdict[Key, float]:
    seconds: defaultdict[Key, float] = defaultdict(float)
    for key, one in zip(keys, spent, strict=True):
        seconds[key] += one.seconds
    return seconds


def _falling(seconds: Mapping[Key, float]) -> list[tuple[Key, float]]:
    return sorted(seconds.items(), key=lambda item: -item[1])


def main() -> None:
    """Profiles one outer step, prints the tables, and with `--record` appends the shares."""
    parser = argparse.ArgumentParser(description=__doc__)
    outer_step.add_flags(parser)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--longest", type=int, default=20, help="operations in the second table")
    Recorder.add_flags(parser)
    given = parser.parse_args()
    setting = outer_step.setting_of(given)
    # Else operations of several threads overlap, and wait for each other.
    outer_step.stay_on(1)
    recorder = Recorder("profile_step", given)
    program, example = outer_step.prepare(setting, lambda network: scoped(network, setting.images))
    compiled = program.lower(*example).compile()
    spent = profile(compiled, example, given.repeats)
    operations = sources(compiled.as_text() or "")
    print(tables(spent, operations, given.longest))
    recorder.add(case_of(setting), *figures(spent, operations))


if __name__ == "__main__":
    main()
