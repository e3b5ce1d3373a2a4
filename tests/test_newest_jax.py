"""What .ci/newest_jax does where its surroundings fail it; no package is installed for that."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / ".ci/newest_jax"

# In place of every Python that the script looks for.
_PYTHON = """#!/bin/sh
case "$*" in
  *version_info*) exit $OLD ;;
  "-m venv"*) mkdir -p .venv-newest/bin; cp "$0" .venv-newest/bin/python ;;
  *"index versions"*) echo "$INDEX"; test "${INDEX#ERROR}" = "$INDEX" ;;
  *"pip install"*) echo "$*" >installed ;;
  *"import jax"*) echo 0.98.0 ;;
  --version) echo Python 3.13.9 ;;
  *pytest*) exit $TESTS ;;
esac
"""


@pytest.fixture
def run(tmp_path):
    """Runs the script in a folder of its own, with what its Python is to answer."""
    (tmp_path / ".ci").mkdir()
    (tmp_path / "bin").mkdir()
    shutil.copy(SCRIPT, tmp_path / ".ci")
    (tmp_path / "constraints.txt").write_text("numpy==2.0.0\npytest==9.2.0\npytest-x==1.0\n")
    for name in ("python3", "python3.12", "python3.13"):
        (tmp_path / "bin" / name).write_text(_PYTHON)
        (tmp_path / "bin" / name).chmod(0o755)

    def run(*, old=0, index="jax (0.99.0)\nAvailable versions: 0.99.0, 0.98.0", tests=0):
        path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
        answers = {"OLD": str(old), "INDEX": index, "TESTS": str(tests)}
        done = subprocess.run(
            [tmp_path / ".ci/newest_jax"],
            env=os.environ | {"PATH": path} | answers,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stderr == ""
        return done.returncode, done.stdout.splitlines()

    return run


def test_an_old_python_is_named(run):
    assert run(old=1) == (0, ["newest JAX: skipped, no Python >= 3.12"])


def test_an_index_that_does_not_answer_is_named(run, tmp_path):
    status, said = run(index="ERROR: No route to host")
    assert status == 0
    assert said == ["newest JAX: skipped, pip's index does not answer: ERROR: No route to host"]
    assert not (tmp_path / "installed").exists()


@pytest.mark.parametrize("status", [0, 1])
def test_a_test_that_fails_fails_the_run(run, tmp_path, status):
    failed, said = run(tests=status)
    assert failed == status
    assert said == [
        "newest JAX: 0.98.0, on Python 3.13.9",
        "newest JAX: the index has 0.99.0, which pyproject.toml or another package does not allow",
    ]
    installed = (tmp_path / "installed").read_text()
    assert installed.endswith("--upgrade-strategy eager -e . pytest==9.2.0 pytest-x==1.0\n")


def test_the_newest_that_is_allowed_needs_no_second_line(run):
    assert run(index="jax (0.98.0)") == (0, ["newest JAX: 0.98.0, on Python 3.13.9"])


def test_the_tests_that_are_named_are_there():
    named = re.findall(r"\btests/\S+", SCRIPT.read_text())
    assert len(named) > 5
    assert [path for path in named if not (ROOT / path).exists()] == []
