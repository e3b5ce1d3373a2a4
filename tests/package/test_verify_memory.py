"""Verifying takes few times the file, whatever is in it: in a process of its own."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gxdistill import package, storage
from gxdistill.package import content, precision
from gxdistill.pytrees import Distilled
from tests.packages import change, make, members

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys
from pathlib import Path
from gxdistill import package
from benchmarks import peak_memory
from gxdistill.errors import UserError

small, path = map(Path, sys.argv[1:])
package.verify(small)  # What all packages take: libraries, and the network's shapes.
said = []

def verify():
    try:
        package.verify(path)
        said.append("whole")
    except UserError as error:
        said.append(str(error))

print(round(peak_memory.growth_mb(verify) * 2**20))
print(*said)
"""
SIZE = 8 << 20


def _rounded(path, kind):
    """A package of about `SIZE` bytes."""
    side = 512
    count = SIZE // (side * side // (2 if kind == "uint4" else 1 if kind == "uint8" else 4))
    shape = (count, 1, side, side, 1)
    rng = np.random.default_rng(0)
    images = np.broadcast_to(rng.normal(size=(1, 1, side, side, 1)).astype(np.float32), shape)
    grid = precision.spanning(images, kind) if kind in precision.LEVELS else None
    images = precision.round_to(images, kind, grid)
    rates, labels = np.zeros(count, np.float32), np.zeros((count, 1, 3), np.float32)
    made = change(make(), "distillation", steps=count, epochs=1, images_per_step=1)
    made = change(made, "patch", size=side, image_height=side, image_width=side)
    made = change(made, precision=kind)
    data = Distilled(images, labels, rates)
    package.save(path, dataclasses.replace(made, distilled=data, grid=grid))


def _with_member(path, name, filling):
    package.save(path, make())
    files = members(path)
    files[name] = filling
    files[content.SUMS] = content.sums(files)
    path.write_bytes(storage.pack(files))


KINDS = {
    "uint4": lambda path: _rounded(path, "uint4"),
    "uint8": lambda path: _rounded(path, "uint8"),
    "float32": lambda path: _rounded(path, "float32"),
    "header": lambda path: _with_member(
        path, "arrays/state/labels/.zarray", b'{"x": [' + b"[]," * (SIZE // 3) + b"[]]}"
    ),
    "orbax": lambda path: _with_member(
        path, "arrays/_CHECKPOINT_METADATA", b"[" * (SIZE // 2) + b"]" * (SIZE // 2)
    ),
    "directory": lambda path: path.write_bytes(
        (b"PK\1\2" + bytes(42)) * (SIZE // 46) + storage.pack({})
    ),
    "weights": lambda path: path.write_bytes(b"gxdistill weights 2\n" + bytes(SIZE)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_verifying_takes_at_most_four_times_the_file(tmp_path, kind):
    package.save(tmp_path / "small.gxd", make())
    path = tmp_path / "p.gxd"
    KINDS[kind](path)
    size = path.stat().st_size
    assert size > SIZE // 2
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "small.gxd"), str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    grown, said = done.stdout.splitlines()
    # What belongs to Orbax is summed up, and not parsed.
    assert (said == "whole") == (kind in (*precision.PRECISIONS, "orbax")), said
    assert int(grown) <= 4 * size, json.dumps({"grown": int(grown), "size": size})
