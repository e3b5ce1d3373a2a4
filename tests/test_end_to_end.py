"""The whole job through the command line, and what a kill does to it."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gxdistill.cli import main
from tests import commands
from tests.stderr import without_jax_start

ROOT = Path(__file__).parents[1]
CONFIG = "--config=configs/demo.py:smoke"


def _command(*arguments, **options):
    # Jobs that a shell has put into the background ignore SIGINT, and their children with them.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from gxdistill.__main__ import run; run()"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def _bytes(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_whole_job_leaves_its_results(run):
    evaluation = json.loads((run / "evaluation.json").read_text())
    contenders = evaluation["contenders"]
    baselines = {"random_real", "random_real_soft", "class_means", "kmeans_centres"}
    baselines.add("all_patches")
    otherwise = {"fresh_networks", "hard_labels", "shuffled"}
    assert contenders.keys() == {"distilled"} | otherwise | baselines
    for figures in contenders.values():
        assert 0 <= figures["balanced_patch_accuracy"]["mean"] <= 1
        for name in ("sen", "spe", "hm", "auc"):
            figure = figures["images"][name]
            assert 0 <= figure["low"] <= figure["high"] <= 1
    ours, ceiling = (
        contenders[name]["balanced_patch_accuracy"]["mean"] for name in ("distilled", "all_patches")
    )
    assert evaluation["shares"]["balanced_patch_accuracy"] == ours / ceiling
    assert evaluation["package_bytes"] == (run / "package.gxd").stat().st_size
    summary = json.loads((run / "cohort.json").read_text())
    assert summary["images"] == 16
    assert "</html>" in (run / "report.html").read_text()


def test_a_finished_run_changes_nothing_when_started_again(run):
    before = (run / "package.gxd").read_bytes(), (run / "history.jsonl").read_bytes()
    with _command("distill", CONFIG, f"--workdir={run}") as process:
        said = process.stderr.read()
    assert process.returncode == 0, said
    assert ((run / "package.gxd").read_bytes(), (run / "history.jsonl").read_bytes()) == before


ENVIRONMENTS = {
    "one core": {},
    "threefry": {"JAX_THREEFRY_PARTITIONABLE": "0"},
    "generator": {"JAX_DEFAULT_PRNG_IMPL": "rbg"},
    "float64": {"JAX_ENABLE_X64": "1"},
    "promotion": {"JAX_NUMPY_DTYPE_PROMOTION": "strict", "JAX_NUMPY_RANK_PROMOTION": "raise"},
    "precision": {"JAX_DEFAULT_MATMUL_PRECISION": "bfloat16"},
}


@pytest.mark.slow
@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_neither_cores_nor_the_environment_decide_what_a_package_holds(run, tmp_path, environment):
    # Programs that are kept are those of the cores that compiled them.
    changes = ENVIRONMENTS[environment] | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    with commands.on_one_core(environment == "one core"):
        process = _command("distill", CONFIG, f"--workdir={tmp_path}", env=os.environ | changes)
    with process:
        said = process.stderr.read()
    assert process.returncode == 0, said
    assert (tmp_path / "package.gxd").read_bytes() == (run / "package.gxd").read_bytes()


def test_a_killed_run_ends_as_the_uninterrupted_one(run, tmp_path):
    rng, kills = random.Random(0), 0
    arguments = ("distill", CONFIG, f"--workdir={tmp_path}")
    started = time.monotonic()
    with _command(*arguments) as process:  # how long a start takes until the first outer step
        while not (tmp_path / "checkpoints").exists() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    kills += process.returncode == -signal.SIGKILL
    spell = time.monotonic() - started
    for _ in range(3):
        with _command(*arguments) as process:
            try:
                process.wait(rng.uniform(0.2, 1.2) * spell)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
        kills += process.returncode == -signal.SIGKILL
    assert kills >= 1
    with _command(*arguments) as process:
        said = process.stderr.read()
    assert process.returncode == 0, said
    assert (tmp_path / "package.gxd").read_bytes() == (run / "package.gxd").read_bytes()
    assert (tmp_path / "history.jsonl").read_bytes() == (run / "history.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("number", "status", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_an_interrupted_run_says_how_to_go_on(tmp_path, number, status, word):
    with _command("distill", CONFIG, f"--workdir={tmp_path}") as process:
        while not (tmp_path / "cohort.json").exists() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(number)
        said = process.stderr.read()
    assert process.returncode == status, said
    assert f"{word}; the same command resumes at the last checkpoint, if there is one" in said
    assert "Traceback" not in without_jax_start(said)


@pytest.mark.parametrize(
    ("number", "status", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_program_that_is_interrupted_while_it_is_imported_says_so(number, status, word):
    code = (
        "import signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "class Finder:\n"
        "    def find_spec(self, name, path, target=None):\n"
        f"        if name == 'gxdistill.cli.main': signal.raise_signal({int(number)})\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from gxdistill.__main__ import run\n"
        "run()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr == f"gxdistill: {word} before it began.\n"


def test_other_settings_do_not_resume(run):
    with pytest.raises(SystemExit, match=r"distill\.batch \(was 16, is 8\)"):
        main.main(["distill", CONFIG, "--config.distill.batch=8", f"--workdir={run}"])


def test_a_package_trains_without_the_cohort(run, tmp_path, monkeypatch):
    shutil.copy(run / "package.gxd", tmp_path / "sent.gxd")
    monkeypatch.chdir(tmp_path)
    main.main(["train", "--package=sent.gxd", "--workdir=own", "--seed=3", "--seeds=2"])
    record = json.loads((tmp_path / "own/networks/networks.json").read_text())
    assert (record["init"], record["count"], record["seed"]) == ("fresh", 2, 3)
    main.main(["train", "--package=sent.gxd", "--workdir=other", "--networks=lenet", "--seeds=1"])
    record = json.loads((tmp_path / "other/networks/networks.json").read_text())
    assert record["network"] == {"name": "lenet", "options": {}}


def test_a_package_is_not_evaluated_on_patches_of_another_geometry(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    with pytest.raises(SystemExit, match=r"patch\.stride = 8, and here it is 4"):
        main.main(["evaluate", CONFIG, "--config.patch.stride=4", f"--workdir={tmp_path / 'run'}"])


@pytest.mark.parametrize("arguments", [("--help",), ("distill", "--help"), ("--version",)])
def test_the_help_is_quick_and_needs_no_jax(arguments):
    code = (
        "import sys; from gxdistill.cli.main import main; main(); "
        "assert not {'jax', 'numpy', 'absl', 'ml_collections'} & set(sys.modules)"
    )
    before = os.times()
    subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, check=True
    )
    after = os.times()
    used = after.children_user - before.children_user
    assert used + after.children_system - before.children_system < 0.5  # CPU seconds
