"""What docs/format.md says, done by a program that knows only it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from gxdistill import package, storage
from gxdistill.package import content
from gxdistill.storage import archive
from tests.packages import make, members, repack

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/format.md").read_text("utf-8")
READER = re.search(r"```python\n(.*?)```", PAGE, re.S)[1]


def _read(python, path):
    command = [python, "-I", "-c", READER, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_reader_of_the_page_reads_a_package(copy):
    found = _read(sys.executable, copy)
    assert found.stderr == ""
    name, sizes = found.stdout.split(" ", 1)
    assert name == "tiny0"
    leaves = {"images": 512, "labels": 24, "log_lr": 6}
    leaves |= {"start.params.Dense_0.bias": 3, "start.params.Dense_0.kernel": 15}
    assert eval(sizes) == leaves


def test_the_reader_of_the_page_finds_the_values(copy, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["reader", str(copy)])
    scope = {}
    exec(READER, scope)
    assert scope["manifest"] == package.to_json(package.load(copy).manifest)
    np.testing.assert_array_equal(scope["arrays"]["images"], make().distilled.images.ravel())


def test_the_reader_of_the_page_finds_damage(copy):
    def harm(files):
        files["arrays/state/images/0.0.0.0.0"] = bytes(2048)

    repack(copy, harm, sums=False)
    assert "damaged" in _read(sys.executable, copy).stderr
    repack(copy, harm)
    assert "AssertionError: images" in _read(sys.executable, copy).stderr


def test_every_release_of_python_that_is_here_reads_it(copy):
    names = [f"python3.{minor}" for minor in range(9, 16)]
    paths = {sys.executable} | {path for name in names if (path := shutil.which(name))}
    outputs = [_read(path, copy).stdout for path in paths]
    outputs = [text for text in outputs if text]  # some are shims of releases that are not here
    assert outputs
    assert set(outputs) == {_read(sys.executable, copy).stdout}


def test_the_page_tells_the_bounds_and_the_members(copy):
    assert f"{archive.MAX_BYTES:,} bytes" in PAGE
    assert f"{archive._MAX_MEMBERS:,} members" in PAGE
    assert content._MAX_MANIFEST_BYTES == content._MAX_OTHER_BYTES == 1 << 20
    assert f"schema version {package.SCHEMA_VERSION}\n" in PAGE
    for name in package.schema()["properties"]:
        assert f"`{name}`" in PAGE
    for name in members(copy):
        told = re.sub(r"arrays/state/[^/]+/", "arrays/state/LEAF/", name)
        told = re.sub(r"LEAF/0[0.]*", "LEAF/0.0...", re.sub(r"step.*png", "NAME.png", told))
        assert f"`{told}`" in PAGE, name


def test_the_headers_are_those_of_the_page(copy):
    raw = copy.read_bytes()
    local = raw[:30]
    assert local[4:14] == bytes.fromhex("1400 0000 0000 0000 2100")
    assert local[28:30] == bytes(2)
    entry = raw[raw.index(b"PK\1\2") :][:46]
    assert entry[4:16] == bytes.fromhex("1403 1400 0000 0000 0000 2100")
    assert entry[30:42] == bytes.fromhex("0000 0000 0000 0000 0000 a481")
    assert raw[-22:-18] == b"PK\5\6"
    assert storage.pack(members(copy)) == raw
