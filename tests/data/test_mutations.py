"""Thousands of harmed image files: each is read or refused with a reason, and costs little.

In a process of its own, which must outlive them all. The kernel bounds the memory of the processes
that this one has decode.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pydicom", reason="needs the extra `dicom`")

ROOT = Path(__file__).parents[2]
SCRIPT = """
import collections, json, random, sys, time
from pathlib import Path

from benchmarks.peak_memory import peak_rss_mb
from gxdistill.data.files import images, masks
from gxdistill.data.files.grey import BadEntryError
from tests.data import mutating

folder, count = Path(sys.argv[1]), int(sys.argv[2])
sound = mutating.pictures() | mutating.dicoms(folder)
for name, content in sound.items():
    (folder / name).write_bytes(content)
    assert images.read_image(folder / name).pixels.shape == (64, 64), name
organs = mutating.masks()
for name, content in organs.items():
    (folder / name).write_bytes(content)
    assert masks.read_mask(folder / name, "a.png", (64, 64)).any(), name
sound |= organs
rng, seen, reasons, longest = random.Random(0), collections.Counter(), set(), 0
for i in range(count):
    name = rng.choice(sorted(sound))
    kind, content = mutating.mutate(rng, sound[name])
    path = folder / f"harmed{Path(name).suffix}"
    path.write_bytes(content)
    start = time.process_time()
    with images.quiet():
        try:
            if name in organs or rng.randrange(4) == 0:
                mask = masks.read_mask(path, "a.png", (64, 64))
                outcome = f"read {mask.dtype}"
            else:
                outcome = f"read {images.read_image(path).pixels.dtype}"
        except BadEntryError as error:
            outcome = "refused"
            reasons.add(str(error))
    longest = max(longest, time.process_time() - start)
    seen[f"{kind} {path.suffix[1:]} {outcome}"] += 1
assert all(reason and "\\n" not in reason and len(reason) < 200 for reason in reasons), reasons
print(json.dumps({"seen": seen, "longest_s": longest, "peak_mb": peak_rss_mb()}))
"""


@pytest.mark.parametrize("count", [300, pytest.param(2000, marks=pytest.mark.slow)])
def test_a_harmed_file_is_read_or_refused(tmp_path, count):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path), str(count)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    print(json.dumps(summary, indent=1, sort_keys=True))
    assert summary["longest_s"] < 5
    assert summary["peak_mb"] < 1000
    seen = summary["seen"]
    assert sum(seen.values()) == count
    assert {name.split()[0] for name in seen} == {
        *("flipped", "cut", "absurd", "revalued", "holed", "moved", "bomb")
    }
    outcomes = {name.split(maxsplit=2)[2] for name in seen}
    assert outcomes == {"read uint8", "read bool", "refused"}
