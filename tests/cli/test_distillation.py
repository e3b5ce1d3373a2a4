"""The commands on a distillation job, as far as they choose what a stage is given."""

import json
import shutil

import pytest

from gxdistill.cli import main
from gxdistill.errors import UserError
from gxdistill.jobs.workdir import Workdir
from gxdistill.tasks.distillation import distilling
from tests import small_jobs
from tests.commands import refusal


def test_what_diverged_is_packaged_only_by_force(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(distilling, "distil", lambda _, *, force: seen.append(force))
    for flags in ([], ["--force"]):
        main.main(["distill", "--config=demo:smoke", f"--workdir={tmp_path}", *flags])
    assert seen == [False, True]


def test_evaluation_trains_networks_where_there_are_none(run, tmp_path, capsys):
    arguments = [
        f"--config={small_jobs.ROOT}/configs/demo.py:smoke",
        f"--package={run / 'package.gxd'}",
    ]
    flags = ["--config.evaluate.baselines=none", f"--workdir={tmp_path / 'run'}"]
    main.main(["evaluate", *arguments, *flags])
    said = capsys.readouterr()
    assert "trained 1 convnet" in said.err
    assert said.out.splitlines()[1].startswith("distilled  ")
    assert small_jobs.content(tmp_path / "run/networks") == small_jobs.content(run / "networks")


@pytest.mark.parametrize("number", [["--seeds=2", "--config.evaluate.networks=4"], []])
def test_evaluation_honours_the_networks_asked_for(run, tmp_path, capsys, number):
    arguments = [
        f"--config={small_jobs.ROOT}/configs/demo.py:smoke",
        f"--package={run / 'package.gxd'}",
    ]
    shutil.copytree(run / "networks", tmp_path / "run/networks")
    flags = ["--config.evaluate.baselines=none", f"--workdir={tmp_path / 'run'}"]
    kinds = ["--networks=lenet,convnet", "--seed=3"]
    main.main(["evaluate", *arguments, *flags, *kinds, *number])  # the config says 2, too
    said = capsys.readouterr()
    trained = [line for line in said.err.splitlines() if line.startswith("trained")]
    assert trained == [f"trained 2 {name} network(s) from seed 3" for name in ("convnet", "lenet")]
    assert [line.split()[0] for line in said.out.splitlines()[1:3]] == ["distilled", "on_lenet"]
    contenders = json.loads((tmp_path / "run/evaluation.json").read_text())["contenders"]
    assert contenders.keys() == {"distilled", "on_lenet"}
    for name, figures in zip(("convnet", "lenet"), contenders.values(), strict=True):
        assert figures["networks"]["network"]["name"] == name
        assert figures["balanced_patch_accuracy"]["n"] == 2
    # What was trained before is not replaced.
    assert small_jobs.content(tmp_path / "run/networks") == small_jobs.content(run / "networks")


@pytest.mark.parametrize(
    ("networks", "message"),
    [("many", "'many'; it must be one of"), ("lenet,convnet", "names several")],
)
def test_networks_that_cannot_be_trained_are_refused(run, tmp_path, networks, message):
    workdir = f"--workdir={tmp_path / 'run'}"
    line = refusal("train", f"--package={run / 'package.gxd'}", f"--networks={networks}", workdir)
    assert message in line
    assert not (tmp_path / "run").exists()


def test_settings_are_listed_for_people_and_for_programs(capsys):
    main.main(["settings", "--config=demo:smoke", "--config.distill.steps=7"])
    lines = capsys.readouterr().out.splitlines()
    assert "* distill.steps = 7 (default 10)" in lines
    assert "  distill.momentum = 0.9" in lines
    main.main(["settings", "--json", "--config=demo:smoke"])
    table = json.loads(capsys.readouterr().out)
    assert table["patch.size"]["value"] == 16
    assert table["patch.size"]["default"] == 299
    main.main(["settings", "--json"])
    assert json.loads(capsys.readouterr().out)["patch.size"]["value"] == 299
    assert "seed is -1; it must be a whole number" in refusal(
        "settings", "--config=demo:smoke", "--config.seed=-1"
    )


@pytest.mark.parametrize("command", ["demo", "train", "evaluate", "report", "compress", "preview"])
def test_a_command_keeps_others_out_of_its_folder(command, tmp_path, monkeypatch):
    """Each asks for the lock of its folder before it does anything there."""
    asked = []

    def refuse(workdir, what):
        asked.append((workdir.path, what))
        raise UserError("in use")

    monkeypatch.setattr(Workdir, "locked", refuse)
    assert "in use" in refusal(command, "--config=demo:smoke", f"--workdir={tmp_path}")
    assert asked == [(tmp_path, f"gxdistill {command}")]


def test_each_site_is_kept_out_in_a_folder_of_its_own(tmp_path, capsys):
    flags = ["--config.evaluate.baselines=none", "--config.data.patients=24"]
    main.main(["leave-one-site-out", "--config=demo:smoke", f"--workdir={tmp_path}", *flags])
    said = capsys.readouterr()
    assert [line.split()[0] for line in said.out.splitlines()[-2:]] == ["site-0", "site-1"]
    for number in range(2):
        folder = tmp_path / f"without-{number}"
        assert (folder / "report.html").exists()
        evaluation = json.loads((folder / "evaluation.json").read_text())
        external = evaluation["contenders"]["distilled"]["external"]
        assert external["site"] == f"site-{number}"
        told = json.loads((tmp_path / "sites.json").read_text())
        assert told[f"site-{number}"]["distilled"]["auc"] == external["images"]["auc"]
