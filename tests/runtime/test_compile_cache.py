import os
import subprocess
import sys
from pathlib import Path

import pytest

from gxdistill.runtime import compile_cache
from tests import small_jobs
from tests.stderr import without_jax_start

_ONE_PROGRAM = """
import sys
from gxdistill.runtime import compile_cache
compile_cache.enable(print)
import jax
jax.jit(lambda x: x * 3).lower(1.0).compile()
"""


@pytest.fixture
def environment(tmp_path):
    """A user's, with a home that is still empty."""
    mine = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    return mine | {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": ""}


def _run(arguments, environment):
    done = subprocess.run(
        arguments, env=environment, cwd=small_jobs.ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + without_jax_start(done.stderr)


def _train(run, tmp_path, environment, *flags):
    command = str(Path(sys.executable).with_name("gxdistill"))
    return _run(
        [
            command,
            "train",
            f"--package={run / 'package.gxd'}",
            f"--workdir={tmp_path / 'run'}",
            *flags,
        ],
        environment,
    )


def test_what_was_compiled_is_kept_for_the_next_start(run, tmp_path, environment):
    _train(run, tmp_path, environment)
    (folder,) = (tmp_path / "home/.cache/gxdistill/xla").iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    kept = {entry.name: entry.stat().st_mtime_ns for entry in folder.iterdir()}
    assert kept
    first = small_jobs.content(tmp_path / "run/networks")
    _train(run, tmp_path, environment)
    assert {entry.name: entry.stat().st_mtime_ns for entry in folder.iterdir()} == kept
    assert small_jobs.content(tmp_path / "run/networks") == first


def test_a_flag_turns_it_off(run, tmp_path, environment):
    _train(run, tmp_path, environment, "--no-compile-cache")
    assert not (tmp_path / "home").exists()


def test_a_folder_that_cannot_be_written_is_told_and_harms_nothing(run, tmp_path, environment):
    (tmp_path / "home").write_text("a file")
    said = _train(run, tmp_path, environment).splitlines()
    assert len(said) == 4
    assert said[0].startswith("compiled programs are not kept: ")
    assert str(tmp_path / "home") in said[0]
    assert said[1].startswith("training 1 network(s) convnet on ")
    assert said[2].startswith("trained 1 convnet")
    assert said[3] == "the sender's network, bit for bit"


def test_the_folder_of_the_environment_is_taken(tmp_path, environment):
    chosen = environment | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "chosen")}
    assert _run([sys.executable, "-c", _ONE_PROGRAM], chosen) == ""
    assert any((tmp_path / "chosen").iterdir())
    assert not (tmp_path / "home").exists()


def test_half_an_entry_is_compiled_anew_without_a_word(tmp_path, environment):
    _run([sys.executable, "-c", _ONE_PROGRAM], environment)
    entries = [e for e in (tmp_path / "home/.cache").rglob("*") if e.is_file()]
    for entry in entries:
        entry.write_bytes(entry.read_bytes()[:-10])
    assert entries
    assert _run([sys.executable, "-c", _ONE_PROGRAM], environment) == ""


def test_the_oldest_programs_make_room(tmp_path, monkeypatch):
    monkeypatch.setattr(compile_cache, "_MAX_BYTES", 25)
    for age, name in enumerate(("new", "middle", "old", "oldest")):
        path = tmp_path / name
        path.write_bytes(bytes(10))
        os.utime(path, (1000 - age, 1000 - age))
    compile_cache._open(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["middle", "new"]


def test_jax_is_not_imported():
    code = (
        "import sys; from gxdistill.runtime import compile_cache; assert 'jax' not in sys.modules"
    )
    _run([sys.executable, "-c", code], os.environ)
