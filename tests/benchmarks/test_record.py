import argparse
import json
import platform
import subprocess
import sys

import jax
import pytest

from benchmarks import record as recorder
from gxdistill.errors import UserError

FIGURE = {
    "case": "demo",
    "metric": "hm",
    "value": 0.5,
    "std": None,
    "n": 1,
    "unit": "1",
    "command": "make demo",
    "commit": "0123456789ab",
    "device": "CPU: A, 2 cores",
    "jax": "0.10.2",
    "cpu_s": 3.0,
    "wall_s": 2.0,
    "date": "2026-01-02T03:04:05+00:00",
}


def _record(folder, metric="hm", value=0.5, **rest):
    known = {"unit": "1", "command": "make demo", "cpu_s": 3.0, "wall_s": 2.0}
    return recorder.record("demo", metric, value, folder=folder, **known | rest)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    def git(*args):
        identity = ("-c", "user.name=A", "-c", "user.email=a@b.c")
        command = ["git", *identity, *args]
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return run.stdout.strip()

    git("init", "-q")
    (tmp_path / "gxdistill").mkdir()
    (tmp_path / "gxdistill/a.py").write_text("a = 1\n")
    git("add", ".")
    git("commit", "-qm", "start")
    monkeypatch.setattr(recorder, "ROOT", tmp_path)
    return tmp_path, git


def test_a_line_has_exactly_the_keys_of_the_convention_and_reads_back(checkout):
    folder = checkout[0] / "benchmarks/results"
    written = [_record(folder), _record(folder, "auc", 0.75, std=0.01, n=5)]
    lines = [json.loads(line) for line in (folder / "demo.jsonl").read_text().splitlines()]
    assert [list(line) for line in lines] == [list(FIGURE), list(FIGURE)]
    assert lines[1]["value"] == 0.75
    assert lines[1]["std"] == 0.01
    assert lines[1]["n"] == 5
    assert lines[0]["jax"] == jax.__version__
    assert recorder.read(folder) == written


def test_the_commit_is_that_of_the_sources(checkout):
    root, git = checkout
    head = git("rev-parse", "HEAD")[:12]
    folder = root / "benchmarks/results"
    assert _record(folder).commit == head
    assert _record(folder).commit == head  # the first line made no source dirty
    (root / "gxdistill/a.py").write_text("a = 2\n")
    assert _record(folder).commit == head + "+dirty"
    git("checkout", "-q", "gxdistill/a.py")
    (root / "gxdistill/b.py").write_text("")  # untracked code counts too
    assert _record(folder).commit == head + "+dirty"


def test_outside_a_checkout_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.delenv(recorder.COMMIT, raising=False)
    with pytest.raises(UserError, match="Record figures in a git checkout"):
        _record(tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_a_command_records_what_it_and_its_children_took_if_it_is_told_to(checkout, monkeypatch):
    folder = checkout[0] / "results"
    monkeypatch.setattr(sys, "argv", ["x", "--record", "--workdir=a b"])
    parser = argparse.ArgumentParser()
    recorder.Recorder.add_flags(parser)
    flags = [f"--results={folder}"]
    recorder.Recorder("demo", parser.parse_args(flags)).add("demo", recorder.Measured("hm", 0.5))
    assert not folder.exists()
    recording = recorder.Recorder("demo", parser.parse_args([*flags, "--record"]))
    busy = "import time\nwhile time.process_time() < 0.3: pass"
    subprocess.run([sys.executable, "-c", busy], check=True)
    rows = [recorder.Measured("hm", 0.5, 0.1, 3), recorder.Measured("wall_s", 7, unit="s")]
    recording.add("demo", *rows)
    one, other = recorder.read(folder)
    assert [(f.metric, f.value, f.std, f.n, f.unit) for f in (one, other)] == rows
    assert one.command == "python -m benchmarks.demo --record '--workdir=a b'"
    assert (one.cpu_s, one.wall_s) == (other.cpu_s, other.wall_s)
    assert 0.28 < one.cpu_s < 2  # The kernel counts in hundredths.
    assert one.wall_s >= 0.28


@pytest.mark.skipif(platform.machine() != "x86_64", reason="lscpu and the kernel may differ")
def test_the_device_is_the_cpu_and_its_cores(checkout):
    device = _record(checkout[0] / "results").device
    lscpu = subprocess.run(["lscpu"], capture_output=True, text=True, check=True).stdout
    model = lscpu.split("Model name:")[1].splitlines()[0].strip()
    nproc = subprocess.run(["nproc"], capture_output=True, text=True, check=True).stdout.strip()
    assert device in {f"CPU: {model}, {nproc} cores", f"CPU: {model}, 1 core"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"metric": "Balanced accuracy"}, "`metric` is 'Balanced accuracy'; it must consist of"),
        ({"value": float("nan")}, "`value` is nan; it must be a finite Python number"),
        ({"value": True}, "`value` is True"),
        ({"std": -0.1}, "`std` is -0.1; it must not be negative"),
        ({"n": 0}, "`n` is 0; it must be an integer of at least 1"),
        ({"wall_s": -1.0}, "`wall_s` is -1.0; it must not be negative"),
        ({"unit": ""}, "`unit` is ''; it must be a text"),
        ({"command": ""}, "`command` is ''; it must be a text"),
    ],
)
def test_an_impossible_figure_is_refused_and_nothing_written(checkout, change, reason):
    folder = checkout[0] / "results"
    with pytest.raises(ValueError, match=reason):
        _record(folder, **change)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ("[]", "it is no JSON object"),
        (json.dumps(FIGURE | {"seed": 1}), "seed: the keys must be exactly case, metric"),
        (json.dumps({k: v for k, v in FIGURE.items() if k != "jax"}), "jax: the keys must be"),
        (json.dumps(FIGURE | {"value": "0.5"}), "`value` is '0.5'; it must be a finite"),
        (json.dumps(FIGURE | {"value": float("nan")}), "`value` is nan"),
        (json.dumps(FIGURE | {"n": 1.5}), "`n` is 1.5"),
        (json.dumps(FIGURE | {"case": "mnist"}), "case 'mnist' belongs in mnist.jsonl"),
    ],
)
def test_a_malformed_line_is_refused_by_file_and_number(tmp_path, line, reason):
    (tmp_path / "demo.jsonl").write_text(f"{json.dumps(FIGURE)}\n{line}\n")
    with pytest.raises(UserError, match=reason) as caught:
        recorder.read(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}/demo.jsonl:2: no figure: ")


def test_a_folder_without_git_is_told_its_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder, "ROOT", tmp_path)
    written = tmp_path / "benchmarks/commit.txt"
    written.parent.mkdir()
    written.write_text("0123456789abcdef0123456789abcdef01234567\n")
    assert _record(tmp_path / "results").commit == "0123456789ab"
    monkeypatch.setenv(recorder.COMMIT, "fedcba987654")
    assert _record(tmp_path / "results").commit == "fedcba987654"
    monkeypatch.delenv(recorder.COMMIT)
    written.write_text("$Format:%H$\n")  # As it is where git did not write it.
    with pytest.raises(UserError, match="needs the commit"):
        _record(tmp_path / "results")


def test_a_checkout_knows_its_commit_better_than_it_is_told(checkout, monkeypatch):
    monkeypatch.setenv(recorder.COMMIT, "fedcba987654")
    root, git = checkout
    assert _record(root / "benchmarks/results").commit == git("rev-parse", "HEAD")[:12]


@pytest.mark.usefixtures("git_checkout")
def test_git_writes_the_commit_into_what_it_archives():
    done = subprocess.run(
        ["git", "archive", "HEAD", "benchmarks/commit.txt"],
        cwd=recorder.ROOT,
        capture_output=True,
        check=True,
    )
    head = recorder.commit().removesuffix("+dirty")
    assert head.encode() in done.stdout
