import dataclasses
import json
import subprocess

import pytest

from benchmarks import merge, record
from gxdistill.errors import UserError
from tests import small_jobs


def _figure(case, **changes):
    head = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"],
        cwd=small_jobs.ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    fields = {"metric": "median_s", "value": 0.5, "std": None, "n": 1, "unit": "s"}
    fields |= {"command": "c", "commit": head, "device": "NVIDIA H100", "jax": "0.11.2"}
    fields |= {"cpu_s": 1.0, "wall_s": 1.0, "date": "2026-01-02T03:04:05+00:00"}
    return record.Figure(case, **fields | changes)


def _write(folder, *figures):
    folder.mkdir(exist_ok=True)
    for figure in figures:
        with (folder / f"{figure.case}.jsonl").open("a") as file:
            file.write(json.dumps(dataclasses.asdict(figure)) + "\n")


@pytest.mark.usefixtures("git_checkout")
def test_figures_come_once_and_rehearsals_never(tmp_path):
    kept, fresh = _figure("a"), _figure("a", value=0.25, commit=_figure("a").commit + "+dirty")
    _write(tmp_path / "home", kept)
    _write(tmp_path / "away", kept, fresh, _figure("rehearsal_a"))
    assert merge.merge(tmp_path / "away", tmp_path / "home") == (1, 2)
    assert record.read(tmp_path / "home") == [kept, fresh]
    assert merge.merge(tmp_path / "away", tmp_path / "home") == (0, 3)


@pytest.mark.usefixtures("git_checkout")
def test_a_command_names_no_folder_of_the_other_machine(tmp_path):
    command = "python -m benchmarks.compiled --target=h100 --record"
    _write(tmp_path / "away", _figure("a", command=f"{command} --results=/tmp/x"))
    assert merge.merge(tmp_path / "away", tmp_path / "home") == (1, 0)
    assert merge.merge(tmp_path / "away", tmp_path / "home") == (0, 1)
    assert record.read(tmp_path / "home") == [_figure("a", command=command)]


@pytest.mark.usefixtures("git_checkout")
def test_sources_that_are_not_the_commits_are_told(tmp_path):
    figure = _figure("a")
    sources = merge.sources_of(figure.commit)
    assert "gxdistill/pytrees.py" in sources
    assert "pyproject.toml" in sources
    assert not any(path.endswith(".md") or "/results/" in path for path in sources)
    _write(tmp_path / "away", figure)
    merge.merge(tmp_path / "away", tmp_path / "same", sources)
    merge.merge(tmp_path / "away", tmp_path / "other", sources | {"pyproject.toml": "0" * 40})
    assert record.read(tmp_path / "same") == [figure]
    (told,) = record.read(tmp_path / "other")
    assert told.commit == f"{figure.commit}+dirty"


@pytest.mark.usefixtures("git_checkout")
def test_what_git_archives_lists_the_sources_of_its_commit(tmp_path):
    archive = subprocess.run(
        ["git", "archive", "HEAD"], cwd=small_jobs.ROOT, capture_output=True, check=True
    )
    subprocess.run(["tar", "-x"], cwd=tmp_path, input=archive.stdout, check=True)
    assert merge.list_sources(tmp_path) == merge.sources_of("HEAD")


@pytest.mark.usefixtures("git_checkout")
def test_a_figure_of_an_unknown_commit_is_refused_and_nothing_is_written(tmp_path):
    _write(tmp_path / "away", _figure("a"), _figure("b", commit="0123456789ab"))
    with pytest.raises(UserError, match="commit 0123456789ab is not in this repository"):
        merge.merge(tmp_path / "away", tmp_path / "home")
    assert not (tmp_path / "home").exists()
