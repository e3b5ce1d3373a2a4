"""Packages that a generator makes who knows the schema: each is used within a budget, or refused.

In a process of its own, in which the folder above is closed to writing.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gxdistill import package
from tests.packages import make

ROOT = Path(__file__).parents[2]
SCRIPT = """
import collections, json, os, sys, time
from pathlib import Path

import hypothesis
import numpy as np
from PIL import Image

from benchmarks import peak_memory
from gxdistill import package
from gxdistill.errors import UserError
from gxdistill.receive import budget, networks, predicting
from gxdistill.runtime import compile_cache
from tests.package import generating
from tests.packages import members

folder, count = Path(sys.argv[1]), int(sys.argv[2])
home, limits = folder / "home", budget.Budget(256 << 20, 1.0)
compile_cache.enable(lambda _: None)
path, image = home / "p.gxd", home / "i.png"
pixels = np.random.default_rng(0).integers(0, 256, (128, 96), np.uint8)  # Of the sound one.
Image.fromarray(pixels).save(image)
seen, longest = collections.Counter(), [0.0, ""]


def outcome(name, run):
    began = time.monotonic()
    try:
        run()
        said = "done"
    except UserError as error:
        said = "refused"
        assert len(str(error)) < 3000, error
        assert str(error).isprintable() or "\\n" in str(error), repr(str(error))
    longest[:] = max(longest, [time.monotonic() - began, name])
    seen[f"{name} {said}"] += 1
    return said


@hypothesis.settings(max_examples=count, deadline=None, database=None, derandomize=True,
    suppress_health_check=list(hypothesis.HealthCheck), phases=[hypothesis.Phase.generate])
@hypothesis.given(generating.packages(members(folder / "sound.gxd")))
def use(raw):
    path.write_bytes(raw)
    work = home / "work"
    if outcome("verify", lambda: budget.outlook(package.verify(path).manifest)) == "done":
        content = package.load(path)
        package.describe(content, path).encode()
        package.card(content)
        outcome("export", lambda: package.export(content, work / "x.npz", "npz"))
        outcome("folder", lambda: package.export(content, work / "torch", "pytorch-folder"))
        outcome("train", lambda: networks.train_networks(path, fresh=1, budget=limits))
        outcome("ordinary", lambda: networks.train_networks(path, fresh=1, name="convnet",
            budget=limits))
        outcome("predict", lambda: predicting.predict(path, [image], work / "out", str,
            budget=limits))
    else:
        outcome("load", lambda: package.load(path))
    assert {*os.listdir(folder)} == {"home", "sound.gxd"}, os.listdir(folder)
    assert {*os.listdir(home)} <= {"p.gxd", "i.png", "work"}, os.listdir(home)
    if work.exists():
        os.system(f"rm -rf '{work}'")


use()
largest = peak_memory.peak_rss_mb()
print(json.dumps({**seen, "longest": longest, "largest_mb": largest}))
"""


@pytest.mark.parametrize("count", [20, pytest.param(500, marks=pytest.mark.slow)])
def test_a_generated_package_is_used_within_a_budget_or_refused(tmp_path, count):
    pytest.importorskip("hypothesis", reason="needs the extra `dev`")
    package.save(tmp_path / "sound.gxd", make())
    (tmp_path / "home").mkdir()
    os.chmod(tmp_path, 0o555)
    try:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(tmp_path), str(count)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        os.chmod(tmp_path, 0o755)
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads(done.stdout)
    print(seen)  # Longest time in s, and largest memory in MB; shown with -s.
    assert seen.pop("longest")[0] < 60
    assert seen.pop("largest_mb") < 2000
    assert seen["verify done"] + seen["verify refused"] >= count
    assert seen["verify done"] > count / 10
