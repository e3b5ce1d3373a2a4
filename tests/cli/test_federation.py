"""The commands on a federation, and how they fail."""

import html
import json
import sys

import pytest

from gxdistill.cli import main
from tests import small_jobs
from tests.commands import refusal


def test_epsilon_prints_the_curve(capsys):
    main.main(["federate", "epsilon", "--rounds=1", "--delta=0.001"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("epsilon of 1 rounds at delta 0.001")
    # One Gaussian release of multiplier 2.575 costs epsilon 1 at delta 0.001.
    told = {float(sigma): float(epsilon) for sigma, epsilon in map(str.split, lines[2:])}
    assert told[2.0] > 1 > told[4.0]


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["federate"], "gxdistill federate: say which, as: gxdistill federate new"),
        (["federate", "simulat"], "gxdistill federate: say which"),
        (["federate", "epsilon", "--delta=0"], "--delta is 0.0; it must lie between 0 and 1"),
        (["federate", "simulate"], "--config is missing"),
        (["federate", "new", "north"], "name just FOLDER FOLDER"),
        (["federate", "report", "--workdir=nowhere"], "Run `gxdistill federate simulate` first"),
        (["federate", "key"], "--site is missing. Name the site whose keys are to be made"),
        (["federate", "key", "--site=../x"], "--site is '../x', which holds a slash"),
        (["federate", "server", "--config=federation:smoke"], "--certificates is missing"),
        (["federate", "client", "--config=federation:smoke"], "--site is missing"),
    ],
)
def test_a_fault_is_one_line(words, fault, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main.main(words)
    assert fault in str(end.value)
    assert "\n" not in str(end.value)


def test_help_of_the_family_lists_all_its_commands(capsys):
    main.main(["federate", "--help"])
    text = capsys.readouterr().out
    for name in ("new", "simulate", "report", "distill", "epsilon", "key", "server", "client"):
        assert f"usage: gxdistill federate {name}" in text


def test_without_flower_its_environment_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "flwr", None)
    main.main(["federate", "certificates"])
    main.main(["federate", "key", "--site=north"])
    flags = ["--config=federation:smoke", "--config.federation.secure=False"]
    flags.append("--config.federation.protect=()")
    server = ["--certificates=certificates", "--sites=keys"]
    client = ["--site=north", "--server=localhost:1", "--authority=certificates/ca.pem"]
    for command, words in (("server", server), ("client", [*client, "--key=keys/north.key"])):
        line = refusal("federate", command, *flags, *words)
        assert "needs Flower, which is not installed" in line
        assert "make setup-federated" in line
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_the_smoke_variant_runs_from_end_to_end(tmp_path, capsys):
    flags = [f"--config={small_jobs.ROOT}/configs/federation.py:smoke", f"--workdir={tmp_path}"]
    for command in ("simulate", "report"):
        main.main(["federate", command, *flags])
    rows = json.loads((tmp_path / "federation.json").read_text())["contenders"]
    assert rows.keys() == {"alone/0", "alone/1", "central", "federated", "site", "patient"}
    printed = capsys.readouterr().out
    for row in rows.values():
        assert row["title"] in printed
        assert row["title"] in html.unescape((tmp_path / "report.html").read_text())
