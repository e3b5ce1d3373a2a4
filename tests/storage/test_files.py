import json
import subprocess
import sys

import numpy as np
import pytest

from gxdistill import storage
from gxdistill.errors import UserError
from tests.stderr import without_jax_start


def _entries(folder):
    return sorted(entry.name for entry in folder.iterdir())


def _fill(folder, text):
    (folder / "below").mkdir()
    (folder / "below" / "file").write_text(text)
    (folder / "other").write_text(text)


def test_a_text_file_replaces_the_former_one_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "folder" / "note.txt"
    for text in ("first", "Mägen, 胃\n"):
        storage.write_text(path, text)
        assert path.read_bytes() == text.encode()
        assert _entries(path.parent) == ["note.txt"]


def test_json_holds_numpy_values_with_sorted_keys(tmp_path):
    value = {"b": np.float32(0.5), "a": np.arange(3), "c": (1, None, "x")}
    storage.write_json(tmp_path / "x.json", value)
    text = (tmp_path / "x.json").read_text()
    assert json.loads(text) == {"a": [0, 1, 2], "b": 0.5, "c": [1, None, "x"]}
    assert text.index('"a"') < text.index('"b"')
    assert text.endswith("}\n")
    assert storage.read_json(tmp_path / "x.json") == json.loads(text)


@pytest.mark.parametrize("value", [float("nan"), np.array([np.inf]), -np.inf])
def test_json_refuses_what_is_no_number(tmp_path, value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        storage.write_json(tmp_path / "x.json", {"value": value})
    assert _entries(tmp_path) == []


def test_json_refuses_other_objects():
    with pytest.raises(TypeError, match="object"):
        storage.json_text({"value": object()})


def test_named_arrays_load_without_pickle(tmp_path):
    arrays = {"scores": np.array([0.5, np.nan]), "names": np.array(["ä", "bc"])}
    storage.write_arrays(tmp_path / "x.npz", **arrays)
    with np.load(tmp_path / "x.npz", allow_pickle=False) as loaded:
        assert sorted(loaded) == ["names", "scores"]
        for name, array in arrays.items():
            np.testing.assert_array_equal(loaded[name], array)
    with pytest.raises(ValueError, match="`names` holds Python objects"):
        storage.write_arrays(tmp_path / "y.npz", names=np.array(["a"], object))
    assert _entries(tmp_path) == ["x.npz"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not valid JSON"),
        (b'{"a": 1', "not valid JSON"),
        (b'{"a": "\xff"}', "not valid JSON"),
        (b'{"a": NaN}', "not valid JSON"),
        (b'{"a": 1e999}', "not valid JSON"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not valid JSON"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "not valid JSON"),
        (b"[1]", "holds no JSON object"),
        (b" " * ((16 << 20) + 1), "is larger than"),
    ],
)
def test_a_broken_json_file_is_refused(tmp_path, content, reason):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=reason) as caught:
        storage.read_json(path)
    assert str(caught.value).startswith(str(path))


def test_a_missing_json_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"x\.json could not be read: No such file"):
        storage.read_json(tmp_path / "x.json")


def test_a_seal_survives_the_disk_and_breaks_at_any_change(tmp_path):
    record = storage.seal({"text": "a", "numbers": [1, 2.5], "by": {10: "x", 9: "y"}, "no": None})
    path = tmp_path / "x.json"
    storage.write_json(path, record)
    storage.check_seal(storage.read_json(path), path)
    changes = {"text": "b", "numbers": [1, 2.25], "by": {}, "no": 0, "sha256": "0" * 64, "new": 1}
    for name, value in changes.items():
        with pytest.raises(UserError, match=r"x\.json was changed"):
            storage.check_seal({**record, name: value}, path)
    with pytest.raises(UserError, match="was changed"):
        storage.check_seal({k: v for k, v in record.items() if k != "sha256"}, path)


def test_a_fresh_folder_takes_the_place_of_the_old_one(tmp_path):
    path = tmp_path / "deep" / "package"
    for text in ("old", "new"):
        with storage.fresh_folder(path) as folder:
            _fill(folder, text)
            assert folder.parent == path.parent
        assert (path / "below" / "file").read_text() == text
        assert _entries(path.parent) == ["package"]
    assert storage.find_folder(path) == path


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("a fault of ours")])
def test_an_error_in_the_block_leaves_all_as_it_was(tmp_path, error):
    path = tmp_path / "package"
    with storage.fresh_folder(path) as folder:
        _fill(folder, "old")

    def fail():
        with storage.fresh_folder(path) as folder:
            _fill(folder, "new")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert (path / "other").read_text() == "old"
    assert _entries(tmp_path) == ["package"]


def test_other_folders_leftovers_stay_with_their_writers(tmp_path):
    live = tmp_path / ".package2.gx-tmp-00000000"
    live.mkdir()
    with storage.fresh_folder(tmp_path / "package") as folder:
        _fill(folder, "x")
    assert live.is_dir()
    storage.tidy(tmp_path)
    assert _entries(tmp_path) == ["package"]


def test_hidden_files_of_others_are_not_leftovers(tmp_path):
    names = [".x.old", ".x.gx-tmp-1", ".gx-old", "x.gx-old", ".x.gx-tmp-0000000g"]
    for name in names:
        (tmp_path / name).write_text("mine")
    storage.tidy(tmp_path)
    assert _entries(tmp_path) == sorted(names)


@pytest.mark.parametrize(
    ("below", "reason"), [("x", "is a file and no folder"), ("x/y", "Not a dir")]
)
def test_a_place_below_a_file_is_refused(tmp_path, below, reason):
    (tmp_path / "file").write_text("mine")
    path = tmp_path / "file" / below
    with pytest.raises(UserError, match=reason) as caught:
        storage.write_text(path, "text")
    assert str(caught.value).startswith(f"{path} could not be written: ")
    with pytest.raises(UserError, match=reason), storage.fresh_folder(path):
        pass
    assert (tmp_path / "file").read_text() == "mine"
    assert _entries(tmp_path) == ["file"]


def test_a_file_in_the_folders_place_is_refused_and_stays(tmp_path):
    (tmp_path / "file").write_text("mine")
    with (
        pytest.raises(UserError, match="it is a file and no folder"),
        storage.fresh_folder(tmp_path / "file"),
    ):
        pass
    assert (tmp_path / "file").read_text() == "mine"


def test_removing_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="could not be written: No such file"):
        storage.remove_folder(tmp_path / "x")


# Forks a writer, lets it die at its n-th action on the file system, for every n until it ends, and
# notes what each death leaves. One process for all the tests below: it takes seconds to start.
_DYING = """
import itertools, json, os, resource, shutil, signal, sys
from pathlib import Path
from gxdistill import storage
from gxdistill.errors import UserError

def die_at(n):
    def hook(event, args):
        nonlocal n
        if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"):
            n -= 1
            if n < 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)

def deaths(work):
    for n in itertools.count():
        pid = os.fork()
        if pid == 0:
            die_at(n)
            work()
            os._exit(0)
        killed = os.waitpid(pid, 0)[1] == signal.SIGKILL
        yield
        if not killed:
            return

def fill(path, text):
    with storage.fresh_folder(path) as folder:
        (folder / "below").mkdir()
        (folder / "below" / "file").write_text(text)
        (folder / "other").write_text(text)

def read(path):
    if not path.exists():
        return "nothing"
    texts = [file.read_text() for file in (path / "other", path / "below" / "file")]
    return texts[0] if texts[0] == texts[1] else "half"

home = Path(sys.argv[1])
package, note = home / "package", home / "note"
seen = {name: [] for name in ("replaced", "mended", "next", "first", "removed", "note", "full")}

fill(package, "old")
for _ in deaths(lambda: fill(package, "new")):
    seen["replaced"].append(read(storage.find_folder(package)))
    for _ in deaths(lambda: storage.tidy(home)):
        seen["mended"].append([seen["replaced"][-1], read(storage.find_folder(package))])
    fill(package, "next")
    seen["next"].append([read(package), *os.listdir(home)])
    fill(package, "old")

shutil.rmtree(package)
for _ in deaths(lambda: fill(package, "new")):
    seen["first"].append(read(package))
    shutil.rmtree(package, ignore_errors=True)

fill(package, "old")
for _ in deaths(lambda: storage.remove_folder(package)):
    storage.tidy(home)
    seen["removed"].append(read(package))
    fill(package, "old")

storage.write_text(note, "old")
for _ in deaths(lambda: storage.write_text(note, "new")):
    seen["note"].append(note.read_text())
    storage.write_text(note, "old")

resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
for work in (
    lambda: fill(package, "new " * 1000),
    lambda: storage.write_text(note, "new " * 1000),
    lambda: storage.write_arrays(note, new=range(1000)),
):
    try:
        work()
    except UserError as error:
        seen["full"].append(str(error))
seen["full"] += [read(package), note.read_text(), sorted(os.listdir(home))]
print(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What writers left that died at each of their actions in turn, or met a full disk."""
    home = tmp_path_factory.mktemp("home")
    command = [sys.executable, "-W", "error", "-c", _DYING, str(home)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert without_jax_start(done.stderr) == ""
    return {**json.loads(done.stdout), "home": home}


def test_a_writer_killed_at_any_action_leaves_the_old_or_the_new_folder(seen):
    assert len(seen["replaced"]) > 15
    assert set(seen["replaced"]) == {"old", "new"}
    assert seen["replaced"] == sorted(seen["replaced"], reverse=True)  # old, ..., old, new, ...


def test_what_is_left_survives_a_kill_while_it_is_mended(seen):
    assert len(seen["mended"]) > len(seen["replaced"])
    assert all(before == after for before, after in seen["mended"])


def test_the_next_writer_leaves_nothing_but_its_folder(seen):
    assert seen["next"] == [["next", "package"]] * len(seen["replaced"])


def test_a_first_writer_killed_at_any_action_leaves_nothing_or_all(seen):
    assert set(seen["first"]) == {"nothing", "new"}


def test_a_deleter_killed_at_any_action_leaves_all_or_nothing(seen):
    assert set(seen["removed"]) == {"nothing", "old"}


def test_a_file_writer_killed_at_any_action_leaves_the_old_or_the_new_text(seen):
    assert set(seen["note"]) == {"old", "new"}


def test_a_full_disk_is_told_and_leaves_what_was_there(seen):
    *messages, folder, text, entries = seen["full"]
    for message, name in zip(messages, ("package", "note", "note"), strict=True):
        start = f"{seen['home'] / name} could not be written: File too large. Make room"
        assert message.startswith(start)
    assert (folder, text, entries) == ("old", "old", ["note", "package"])
