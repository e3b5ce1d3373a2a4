"""The command line itself: commands, flags, configs, exit status."""

import dataclasses
import os
import re
import signal
import subprocess
import sys

import jax.numpy as jnp
import pytest

import gxdistill
from gxdistill import package, plan
from gxdistill.cli import config as cli_config
from gxdistill.cli import flags, main
from tests import small_jobs
from tests.commands import refusal
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


@pytest.mark.parametrize("arguments", [[], ["help"], ["-h"], ["--help"]])
def test_the_help_lists_the_commands(arguments, capsys):
    main.main(arguments)
    said = capsys.readouterr().out
    listed = said.partition("Commands:\n")[2].partition("\n\n")[0].splitlines()
    assert [line.split()[0] for line in listed] == [
        *(
            "new",
            "check",
            "demo",
            "leave-one-site-out",
            "prepare",
            "preview",
            "distill",
            "train",
            "export-networks",
        ),
        "compress",
        *("evaluate", "plan", "report", "settings"),
        *("federate",) * 9,
        *("audit", "inspect", "verify"),
        *("sign", "diff", "merge", "export", "predict", "calibrate", "migrate"),
        *("mixup",) * 9,
        *("segment",) * 4,
    ]
    assert max(map(len, said.splitlines())) <= 100


@pytest.mark.parametrize("command", main.COMMANDS.values(), ids=lambda command: command.name)
def test_each_command_has_its_own_help(command, capsys):
    main.main([command.name, "--help"])
    said = capsys.readouterr().out
    assert said.startswith(f"usage: gxdistill {command.name}")
    described = re.findall(r"^  --([\w-]+)", said, re.MULTILINE)
    assert described == [flag.name for flag in command.flags]
    assert max(map(len, said.splitlines())) <= flags.WIDTH
    for arguments in (
        [command.name, "-h"],
        [command.name, "--workdir=x", "--help"],
        ["help", command.name],
        ["--help", command.name],
    ):
        main.main(arguments)
        assert capsys.readouterr().out == said


@pytest.mark.parametrize("command", main.COMMANDS.values(), ids=lambda command: command.name)
def test_the_example_of_a_help_page_is_a_call_of_its_command(command):
    assert command.example.startswith(f"{command.name} ")
    options = flags.parse(command, command.example.removeprefix(command.name).split())
    if getattr(options, "config", None):
        name, *variant = options.config.split(":")
        assert cli_config.locate(options.config).endswith(":".join([f"/{name}.py", *variant]))


def test_the_help_names_the_choices_that_there_are():
    pages = {name: flags.page(main.COMMANDS[name]) for name in ("plan", "export")}
    for name, choices in (("plan", plan.NAMES), ("export", package.FORMATS)):
        assert f"one of {', '.join(choices)}\n" in pages[name]


def test_the_version_is_said(capsys):
    main.main(["--version"])
    assert capsys.readouterr().out == f"gxdistill {gxdistill.__version__}\n"


def _as_module(*words):
    """Starts `python -m gxdistill`."""
    return subprocess.Popen(
        [sys.executable, "-m", "gxdistill", *words],
        cwd=small_jobs.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_python_runs_the_package_as_the_command():
    with _as_module("verify", "nowhere") as process:
        assert without_jax_start(process.stderr.read()).startswith("gxdistill verify: ")
    assert process.returncode == 1


@pytest.mark.parametrize("unbuffered", [False, True])
def test_a_reader_that_stops_reading_is_no_fault(run, unbuffered, monkeypatch):
    if unbuffered:
        monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    else:
        monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    for words in (["--help"], ["inspect", str(run / "package.gxd")]):
        with _as_module(*words) as process:
            process.stdout.close()  # as `head` does
            assert without_jax_start(process.stderr.read()) == ""
        assert process.returncode == 141


def test_a_pipe_that_breaks_elsewhere_is_not_hidden(monkeypatch):
    def lose_a_worker(_):
        raise BrokenPipeError("a worker is gone")

    command = dataclasses.replace(main.COMMANDS["verify"], run=lose_a_worker)
    monkeypatch.setitem(main.COMMANDS, "verify", command)
    with pytest.raises(BrokenPipeError, match="a worker is gone"):
        main.main(["verify", "package.gxd"])


RESUMES = {
    *(
        "demo",
        "leave-one-site-out",
        "prepare",
        "distill",
        "compress",
        "evaluate",
        "audit",
        "segment train",
    ),
    *("federate simulate", "federate distill", "federate server", "mixup train", "mixup evaluate"),
}


@pytest.mark.parametrize(
    ("number", "status", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
@pytest.mark.parametrize("command", main.COMMANDS.values(), ids=lambda command: command.name)
def test_an_interrupted_command_says_what_starting_it_again_does(
    command, number, status, word, monkeypatch, capsys
):
    def interrupt(_):
        signal.raise_signal(number)

    monkeypatch.setitem(main.COMMANDS, command.name, dataclasses.replace(command, run=interrupt))
    before = signal.getsignal(signal.SIGTERM)
    # A shell starts what runs in its background deaf to SIGINT.
    deaf = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as stop:
            main.main(command.example.split())
    finally:
        signal.signal(signal.SIGINT, deaf)
    assert stop.value.code == status
    assert signal.getsignal(signal.SIGTERM) == before
    said = capsys.readouterr().err
    assert said.startswith(f"gxdistill {command.name}: {word}; ")
    assert ("the same command resumes" in said) == (command.name in RESUMES)


def test_the_commands_of_a_family_are_described_together(capsys):
    family = [name for name in main.COMMANDS if name.startswith("segment ")]
    main.main(["segment", "--help"])
    said = capsys.readouterr().out
    assert [line.split(" [")[0] for line in said.splitlines() if line.startswith("usage:")] == [
        f"usage: gxdistill {name}{' IMAGE...' * (name == 'segment predict')}" for name in family
    ]
    assert refusal("segment") == (
        f"gxdistill segment: say which, as: gxdistill {', gxdistill '.join(family)}"
    )


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("distil", "distill"), ("eval", "evaluate"), ("prep", "prepare"), ("inspekt", "inspect")],
)
def test_an_unknown_command_names_the_nearest(typed, meant):
    for arguments in ([typed], [typed, "--help"], ["help", typed]):
        line = refusal(*arguments)
        assert line == f"gxdistill: unknown command {typed!r}. Did you mean {meant!r}?"


def test_a_flag_before_the_command_is_refused():
    line = refusal("--workdir=run", "distill")
    assert line == "gxdistill: a command comes before --workdir=run, as: gxdistill distill ..."


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
    line = refusal("prepare", "--config=own.py:strange", "--workdir=run")
    assert message in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=nowhere.py"], "--config=nowhere.py cannot be read: "),
        (["--config=cohort"], "Is a directory"),
        (["--config="], "--config= cannot be read: "),
        (["--config"], "--config: expected one argument"),
        ([], "--config is missing. Name a file, for example --config=configs/demo.py, or one of"),
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
        (["--config=sound.py", "--configg=3"], "unknown flag --configg. Did you mean --config?"),
        (["--config=sound.py", "--wokdir=run"], "Did you mean --workdir?"),
        (["--config=sound.py", "--seeds=3"], "unknown flag --seeds"),
        (["--config=sound.py", "more"], "'more'"),
    ],
)
@pytest.mark.usefixtures("config")
def test_a_flag_that_cannot_be_used_is_refused(arguments, message, tmp_path):
    before = small_jobs.content(tmp_path)
    assert message in refusal("prepare", *arguments)
    assert message in refusal("prepare", *_apart(arguments))
    assert {
        k: v for k, v in small_jobs.content(tmp_path).items() if "__pycache__" not in k
    } == before


def _apart(arguments):
    """The same arguments, written `--flag value`."""
    return [part for argument in arguments for part in argument.split("=", 1)]


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
        "gxdistill distill: patch.size is 65, which does not fit in images of 64x64 px. "
        "Lower it, as --config.patch.size=9, and patch.stride with it."
    )
    assert "Traceback" not in without_jax_start(done.stderr)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("config")
def test_memory_that_does_not_suffice_is_said_so(monkeypatch):
    def greedy(_):
        jnp.zeros(2**46).block_until_ready()

    prepare = main.COMMANDS["prepare"]
    monkeypatch.setitem(main.COMMANDS, "prepare", dataclasses.replace(prepare, run=greedy))
    assert "the memory does not suffice" in refusal("prepare", "--config=sound.py")

    def faulty(_):
        raise RuntimeError("a fault of ours")

    monkeypatch.setitem(main.COMMANDS, "prepare", dataclasses.replace(prepare, run=faulty))
    with pytest.raises(RuntimeError, match="a fault of ours"):
        main.main(["prepare", "--config=sound.py"])


@pytest.mark.parametrize(
    ("said", "command", "way_out"),
    [
        ("RESOURCE_EXHAUSTED: Out of memory allocating 5 bytes.", "train", "take fewer networks"),
        ("INTERNAL: Generated function failed: Out of memory", "predict", "ask the sender"),
    ],
)
def test_memory_that_does_not_suffice_is_told_in_a_line(said, command, way_out):
    def fails(said):
        with main._kind_failures(main.COMMANDS[command], leave=sys.exit):
            raise RuntimeError(said)

    with pytest.raises(SystemExit, match=way_out) as stop:
        fails(said)
    assert "the memory does not suffice" in stop.value.code
    with pytest.raises(RuntimeError, match="something else"):
        fails("INTERNAL: something else")
