"""The command line itself: commands, flags, configs, exit status."""

import json
import os
import shutil
import subprocess
import sys

import jax.numpy as jnp
import pytest

from gxdistill.cli import main
from tests import keys, small_jobs
from tests.stderr import without_jax_start

HEAD = """
import ml_collections
from gxdistill.tasks.distillation.settings import default_config

def get_config(variant="full"):
    config = default_config()
    config.name = "mine"
    config.data.path = {folder!r}
    config.patch.size = config.patch.stride = 16
    config.network.options = {{"width": 4, "depth": 1}}
"""


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A sound config of one's own, and the folder to stand in."""
    small_jobs.write_cohort(tmp_path / "cohort")
    text = HEAD.format(folder=str(tmp_path / "cohort")) + "    return config\n"
    (tmp_path / "sound.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    return text


def _refusal(*arguments):
    with pytest.raises(SystemExit) as stop:
        main.main(list(arguments))
    line = stop.value.code
    assert isinstance(line, str), line  # Python prints it on stderr and exits with status 1.
    assert line.startswith("gxdistill")
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    "arguments", [[], ["help"], ["-h"], ["--help"], ["distill", "--help"], ["train", "x", "-h"]]
)
def test_help_is_given_wherever_it_is_asked_for(arguments, capsys):
    main.main(arguments)
    said = capsys.readouterr().out
    listed = said.partition("Commands:\n")[2].partition("\n\n")[0].splitlines()
    assert [line.split()[0] for line in listed] == [
        *("demo", "prepare", "preview", "distill", "train", "compress"),
        *("evaluate", "plan", "report", "inspect", "verify"),
        *("sign", "diff", "export", "predict", "migrate"),
    ]
    assert max(map(len, said.splitlines())) <= 100


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("distil", "distill"), ("eval", "evaluate"), ("prep", "prepare"), ("inspekt", "inspect")],
)
def test_an_unknown_command_names_the_nearest(typed, meant):
    assert _refusal(typed) == f"gxdistill: unknown command {typed!r}. Did you mean {meant!r}?"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("    raise RuntimeError('boom')", "cannot be read: boom"),
        ("    config.distill.stepz = 3\n    return config", "stepz"),
        ("    config.distill.steps = 'ten'\n    return config", "ten"),
        ("    return {'distill': 3}", "returns an ml_collections.ConfigDict"),
        ("    return None", "returns an ml_collections.ConfigDict"),
        ("    return ml_collections.ConfigDict()", "The config has no setting"),
        (
            "    config.distill.unlock()\n    config.distill.stepz = 3\n    return config",
            "unknown setting distill.stepz. Did you mean distill.steps?",
        ),
        ("    config.distill.start_lr = float('nan')\n    return config", "start_lr is nan"),
        ("    (", "cannot be read: '(' was never closed"),
        (
            "    if variant != 'full': raise ValueError('not ' + variant)\n    return config",
            "cannot be read: ValueError: not strange",
        ),
    ],
)
@pytest.mark.usefixtures("config")
def test_a_config_that_cannot_be_used_is_refused(body, message, tmp_path):
    (tmp_path / "own.py").write_text(HEAD.format(folder="cohort") + body)
    line = _refusal("prepare", "--config=own.py:strange", "--workdir=run")
    assert message in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=nowhere.py"], "--config=nowhere.py cannot be read: "),
        (["--config=cohort"], "Is a directory"),
        (["--config="], "--config= cannot be read: "),
        (["--config"], "--config is missing"),
        (
            ["--config", "sound.py"],
            "--config is missing. Name a file, for example --config=configs",
        ),
        (["--config.seed=3"], "--config is missing"),
        (["--config=sound.py", "--config.distill.stepz=3"], "Did you mean --config.distill.steps?"),
        (["--config=sound.py", "--config.network.options.widht=3"], "network.options.width?"),
        (["--config=sound.py", "--config.distill.steps=1.5"], "--config.distill.steps=1.5"),
        (["--config=sound.py", "--config.distill.steps="], "--config.distill.steps="),
        (["--config=sound.py", "--config.distill.steps"], "Missing value"),
        (["--config=sound.py", "--config.patch.border=perhaps"], "perhaps"),
        (["--config=sound.py", "--config.distill=3"], "--config.distill=3"),
        (["--config=sound.py", "--config.data.image_size=64"], "data.image_size is (64,)"),
        (["--config=sound.py", "--config.seed=99999999999"], "seed is 99999999999"),
        (["--config=sound.py", "--config.data.limit=0"], "data.limit is 0"),
        (["--config=sound.py", "--configg=3"], "configg"),
        (["--config=sound.py", "--wokdir=run"], "Did you mean: workdir"),
        (["--config=sound.py", "--seeds=many"], "--seeds=many"),
        (["--config=sound.py", "--seeds=0"], "--seeds=0"),
        (["--config=sound.py", "--seed=1.5"], "--seed=1.5"),
        (["--config=sound.py", "--seed=-1"], "--seed=-1"),
        (["--config=sound.py", "--seed=99999999999999999999"], "--seed=99999999999999999999"),
        (["--config=sound.py", "more"], "'more'"),
    ],
)
@pytest.mark.usefixtures("config")
def test_a_flag_that_cannot_be_used_is_refused(arguments, message, tmp_path):
    before = small_jobs.content(tmp_path)
    assert message in _refusal("prepare", *arguments)
    assert {
        k: v for k, v in small_jobs.content(tmp_path).items() if "__pycache__" not in k
    } == before


@pytest.mark.usefixtures("config")
def test_a_setting_is_changed_by_a_flag_and_the_folder_is_named_by_the_config(tmp_path, capsys):
    main.main(["prepare", "--config=sound.py", "--config.patch.stride=8"])
    said = capsys.readouterr()
    assert said.out == ""
    # 64 px hold 7 x 7 corners at stride 8; the middle one of 7 columns straddles the organ's edge.
    assert "'train': {'irrelevant': 84, 'non-gastritis': 42, 'gastritis': 42}" in said.err
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["mine"]
    assert sorted(path.name for path in (tmp_path / "runs/mine").iterdir()) == [
        *("cohort.json", "leaks.csv", "prepared", "pseudonyms.json")
    ]


@pytest.mark.usefixtures("config")
def test_the_shell_sees_status_1_and_one_line(tmp_path):
    command = os.path.join(os.path.dirname(sys.executable), "gxdistill")
    arguments = ("distill", "--config=sound.py", "--config.patch.size=65", "--workdir=run")
    done = subprocess.run(
        [command, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    *_, line = done.stderr.splitlines()
    assert line == (
        "gxdistill distill: patch: A 65x65 patch does not fit in an image of 64x64 pixels. "
        "Pass a smaller `size`, or pad the image first."
    )
    assert "Traceback" not in without_jax_start(done.stderr)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("config")
def test_memory_that_does_not_suffice_is_said_so(monkeypatch):
    def greedy(_):
        jnp.zeros(2**46).block_until_ready()

    monkeypatch.setitem(main._JOBS, "prepare", (greedy, ""))
    assert "the memory does not suffice" in _refusal("prepare", "--config=sound.py")

    def faulty(_):
        raise RuntimeError("a fault of ours")

    monkeypatch.setitem(main._JOBS, "prepare", (faulty, ""))
    with pytest.raises(RuntimeError, match="a fault of ours"):
        main.main(["prepare", "--config=sound.py"])


def test_a_package_is_inspected_and_verified(run, capsys):
    main.main(["inspect", str(run / "package.gxd")])
    assert "demo_smoke" in capsys.readouterr().out
    main.main(["verify", str(run / "package.gxd")])
    assert capsys.readouterr().out == f"{run / 'package.gxd'}: whole and unchanged.\n"
    for arguments in (["verify"], ["verify", "a", "b"], ["diff", "a"]):
        assert "name just PACKAGE" in _refusal(*arguments)
    for arguments in (["inspect", "--package=a"], ["verify", "a", "--key"], ["diff", "--key=a"]):
        assert f"unexpected '{arguments[-1]}'; flags of this command: " in _refusal(*arguments)


def test_packages_are_signed_compared_and_exported(run, tmp_path, capsys):
    package = str(shutil.copy(run / "package.gxd", tmp_path / "p.gxd"))
    private, public = keys.write_pair(tmp_path)
    assert "is not signed" in _refusal("verify", package, f"--key={public}")
    assert "--key is missing" in _refusal("sign", package)
    main.main(["sign", package, f"--key={private}"])
    signed = capsys.readouterr().out.removeprefix(f"{package}: ")
    main.main(["verify", package, f"--key={public}"])
    assert capsys.readouterr().out == f"{package}: whole and unchanged; {signed}"
    main.main(["diff", package, str(run / "package.gxd")])
    assert "settings that differ\n  none\n" in capsys.readouterr().out
    for to in ("npz", "safetensors", "png", "pytorch-folder"):
        main.main(["export", package, f"--to={to}"])
        assert capsys.readouterr().out == f"{tmp_path}/p.{to}\n"
        assert (tmp_path / f"p.{to}").exists()
    assert "exists already" in _refusal("export", package, "--to=npz")
    assert "--to is missing. Choose one of npz" in _refusal("export", package)
    assert "is no package of schema version 1" in _refusal("migrate", str(tmp_path))


def test_evaluation_trains_networks_where_there_are_none(run, tmp_path, capsys):
    arguments = [
        f"--config={small_jobs.ROOT}/configs/demo.py:smoke",
        f"--package={run / 'package.gxd'}",
    ]
    flags = ["--config.evaluate.baselines=False", f"--workdir={tmp_path / 'run'}"]
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
    flags = ["--config.evaluate.baselines=False", f"--workdir={tmp_path / 'run'}"]
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
    line = _refusal("train", f"--package={run / 'package.gxd'}", f"--networks={networks}", workdir)
    assert message in line
    assert not (tmp_path / "run").exists()
