"""Thousands of harmed packages: each loads as it was or is refused in one line.

In a process of its own, in which no load may take long or much memory, nothing but the package may
be opened, and nothing may be written, imported by name from it, or run.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gxdistill import package
from tests.packages import make_rounded

ROOT = Path(__file__).parents[2]
SCRIPT = """
import collections, json, os, random, sys, time, tracemalloc
from pathlib import Path

from benchmarks import peak_memory
from gxdistill import package
from gxdistill.errors import UserError
from tests.package import mutating
from tests.packages import content_bits

whole, other, harmed, count, seed = *map(Path, sys.argv[1:4]), *map(int, sys.argv[4:])
expected, genuine = content_bits(package.load(whole)), package.digest(whole)
sound, foreign = whole.read_bytes(), other.read_bytes()
rng, seen, events = random.Random(seed), collections.Counter(), []
FORBIDDEN = ("compile", "exec", "import", "os.", "shutil.", "socket.", "subprocess.", "pickle.")
ALLOWED = ("os.listdir", "os.scandir")
watching = False

def watch(event, arguments):
    if not watching:
        return
    if event == "open":
        name, mode, flags = arguments
        ours = str(name) == str(harmed) or isinstance(name, int)  # Or a descriptor of it.
        if not ours or "r" not in str(mode or "r") or flags & (os.O_WRONLY | os.O_RDWR):
            events.append((event, arguments))
    elif event.startswith(FORBIDDEN) and event not in ALLOWED:
        events.append((event, str(arguments)[:200]))

sys.addaudithook(watch)
longest = largest = 0
before = peak_memory.peak_rss_mb()
for i in range(count):
    kind, content = mutating.mutate(rng, sound, foreign)
    harmed.write_bytes(content)
    if i < 200:  # It makes all of it ten times as slow; the pages in use tell of the others.
        tracemalloc.start()
    start, watching = time.monotonic(), True
    try:
        loaded = package.load(harmed)
        outcome = "same" if content_bits(loaded) == expected else "CHANGED"
        if outcome == "CHANGED" and kind == "forged" and loaded.sha256 != genuine:
            outcome = "another"  # Only a signature can tell it from a package of the sender's.
            package.describe(loaded, harmed)
            package.diff(loaded, loaded)
    except UserError as error:
        outcome = "refused" if "\\n" not in str(error) and len(str(error)) < 1000 else "LONG"
    finally:
        watching = False
    longest = max(longest, time.monotonic() - start)
    if tracemalloc.is_tracing():
        largest = max(largest, tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    seen[f"{kind} {outcome}"] += 1
    if outcome.isupper() or events:
        print(f"mutation {i}, {kind}: {outcome} {events[:3]}", file=sys.stderr)
        sys.exit(1)
grown = peak_memory.peak_rss_mb() - before
print(json.dumps({**seen, "longest_s": longest, "largest_mb": largest / 1e6, "grown_mb": grown}))
"""


@pytest.mark.parametrize(
    ("count", "kind"),
    [
        (400, "float32"),
        pytest.param(10_000, "float32", marks=pytest.mark.slow),
        pytest.param(4000, "uint4", marks=pytest.mark.slow),
    ],
)
def test_a_harmed_package_loads_as_it_was_or_is_refused(tmp_path, count, kind):
    for name, seed in (("whole.gxd", 0), ("other.gxd", 1)):
        package.save(tmp_path / name, make_rounded(kind, seed))
    (tmp_path / "harmed").mkdir()
    paths = [tmp_path / name for name in ("whole.gxd", "other.gxd", "harmed/p.gxd")]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, paths), str(count), "0"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.pop("longest_s") < 10
    assert found.pop("largest_mb") < 128
    assert found.pop("grown_mb") < 512
    assert sum(found.values()) == count
    kinds = {name.rpartition(" ")[0] for name in found}
    assert len(kinds) >= 12, found
    outcomes = {name.rpartition(" ")[2] for name in found}
    assert {"same", "refused"} <= outcomes <= {"same", "refused", "another"}
    assert [path.name for path in (tmp_path / "harmed").iterdir()] == ["p.gxd"]
