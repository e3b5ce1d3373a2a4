"""Packages with hostile names in every place that holds one: nothing is written outside."""

import importlib.util
import json
import urllib.parse
import zipfile

import numpy as np
import pytest

from gxdistill import package, storage
from gxdistill.errors import UserError
from gxdistill.package import content
from tests.hostile import NAMES, SOUND
from tests.packages import make, members

FORMATS = ("npz", "safetensors", "png", "pytorch-folder")  # Of tfds, which is slow, one package.


def _quote(name):
    """As the leaves' names are quoted, halves of characters too."""
    return urllib.parse.quote(name.encode("utf-8", "surrogatepass"), " ~").replace(".", "%2E")


def _move(files, manifest, new):
    """Gives an array of the start another name."""
    old = "start.params.Dense_0.bias"
    manifest["arrays"][new] = manifest["arrays"].pop(old)
    for member in [member for member in files if f"/{old}/" in member]:
        files[member.replace(old, new)] = files.pop(member)


def _preview(files, _, name):
    picture = next(member for member in files if member.startswith("previews/"))
    files[f"previews/{name}.png"] = files.pop(picture)


PLACES = {
    "key": lambda files, told, name: _move(files, told, f"start.params.{_quote(name)}"),
    "branch": lambda files, told, name: _move(files, told, f"start.{_quote(name)}.bias"),
    "unquoted": lambda files, told, name: _move(files, told, f"start.{name}"),
    "array": lambda files, told, name: _move(files, told, _quote(name)),
    "preview": _preview,
    "class": lambda _, told, name: told["class_names"].__setitem__(0, name),
    "name": lambda _, told, name: told.update(name=name),
    "network": lambda _, told, name: told["network"].update(name=name),
    "option": lambda _, told, name: told["network"].update(options={name: name}),
    "split": lambda _, told, name: told["cohort"]["splits"].update(
        {name: told["cohort"]["splits"]["test"]}
    ),
    "result": lambda _, told, name: told.update(results={name: 0.5}),
    "setting": lambda _, told, name: told["distillation"].update(settings={name: name}),
}
ARRAYS = ("key", "branch", "unquoted", "array")


def _plant(path, sound, place, name):
    """Writes a package that is whole but for a name; False where no archive may hold it."""
    files, told = dict(sound), json.loads(sound["manifest.json"])
    PLACES[place](files, told, name)
    files["manifest.json"] = json.dumps(told).encode()
    try:
        files[content.SUMS] = content.sums(files)
        path.write_bytes(storage.pack(files))
    except ValueError:
        return False
    return True


def _listing(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def _is_sound(path):
    """Whether all that was written has plain names, in folders and archives."""
    paths = [path, *path.rglob("*")]
    names = [path.name for path in paths]
    if path.suffix == ".npz":
        with zipfile.ZipFile(path) as file:
            names += file.namelist()
    return all(storage.name_fault(name) is None for name in names)


def _outcome(path, target, to):
    """Exports a package; returns "written", or in which words it was refused."""
    try:
        package.export(package.load(path), target, to)
    except UserError as error:
        return str(error)
    return "written"


def _check_outcome(outcome, target):
    if outcome == "written":
        assert _is_sound(target)
    else:
        assert len(outcome) < 1000
        assert outcome.isprintable()
        assert not target.exists()


@pytest.fixture
def disk(tmp_path):
    """Folders around the one that is written to, with files that could be overwritten."""
    inner = tmp_path / "outer/inner"
    (inner / "out").mkdir(parents=True)
    for folder in (tmp_path, tmp_path / "outer", inner):
        for name in ("x", "x.npy", "a.npy", "outside.npy"):
            (folder / name).write_text("not to be changed")
    return inner


@pytest.mark.parametrize("place", PLACES)
def test_no_name_in_a_package_leads_out_of_its_folder(saved, disk, place):
    sound, before, planted = members(saved), None, 0
    for i, name in enumerate(NAMES):
        if not _plant(disk / "p.gxd", sound, place, name):
            continue
        before = before or _listing(disk.parents[1])
        for to in FORMATS if place in ARRAYS else ("npz", "png"):
            target = disk / "out" / f"{i}{'.npz' if to == 'npz' else to}"
            outcome = _outcome(disk / "p.gxd", target, to)
            _check_outcome(outcome, target)
            assert outcome != "written" or place not in ARRAYS, name
            planted += 1
    assert planted > 40
    after = _listing(disk.parents[1])
    assert before is not None
    changed = {path for path in before.keys() | after if before.get(path) != after.get(path)}
    allowed = {disk / "p.gxd", disk, disk / "out"}
    assert all(path in allowed or path.is_relative_to(disk / "out") for path in changed)


@pytest.mark.slow
def test_no_class_name_leads_tensorflow_datasets_out_of_its_folder(saved, disk):
    if importlib.util.find_spec("tensorflow_datasets") is None:
        pytest.skip("needs tensorflow-datasets: pip install -e '.[tfds]'")
    _plant(disk / "p.gxd", members(saved), "class", "../../x")
    before = _listing(disk.parents[1])
    assert _outcome(disk / "p.gxd", disk / "out/set", "tfds") == "written"
    changed = {path for path, when in _listing(disk.parents[1]).items() if before.get(path) != when}
    assert all(path == disk / "out" or path.is_relative_to(disk / "out/set") for path in changed)


def test_plain_names_are_exported_in_every_form(saved, disk):
    sound = members(saved)
    for name in SOUND:
        for place in ("key", "branch"):
            if "." in name:
                continue
            assert _plant(disk / "p.gxd", sound, place, name)
            for to in FORMATS:
                target = disk / "out" / f"{name}-{place}{'.npz' if to == 'npz' else to}"
                assert _outcome(disk / "p.gxd", target, to) == "written"


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("name", NAMES)
def test_a_package_in_memory_is_exported_into_its_folder_alone(disk, name, to):
    made = make()
    made.start["params"][name] = np.ones(2, np.float32)
    before = _listing(disk.parents[1])
    with pytest.raises(UserError, match="cannot be the name of a file: it "):
        package.export(made, disk / "out" / "p", to)
    assert _listing(disk.parents[1]) == before
