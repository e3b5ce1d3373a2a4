import subprocess
import sys

import pytest

from tests import stderr

# As the plugin of CUDA does where there is no GPU: a line with time and process, then a traceback.
_PLUGIN = """
import os, sys, time
print(f"I0000 {time.time()} {os.getpid()} no driver", file=sys.stderr)

def initialize():
    raise RuntimeError("no GPU here")
"""
_PROGRAM = """
{}
import sys
import jax
assert jax.default_backend() == "cpu"
print("mine 1", file=sys.stderr)
{}
"""


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Runs a program beside a plugin without its GPU and returns all that came on stderr."""
    plugin = tmp_path / "jax_plugins/no_gpu/__init__.py"
    plugin.parent.mkdir(parents=True)
    plugin.write_text(_PLUGIN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    stderr._jax_start.cache_clear()

    def run(first_line="", last_line=""):
        command = [sys.executable, "-c", _PROGRAM.format(first_line, last_line)]
        return subprocess.run(command, capture_output=True, text=True, check=False).stderr

    yield run
    stderr._jax_start.cache_clear()


@pytest.mark.parametrize("first_line", ["", "import logging; logging.basicConfig()"])
def test_what_a_plugin_without_its_gpu_writes_is_dropped(written, first_line):
    said = written(first_line)
    assert "no driver" in said
    assert "RuntimeError: no GPU here" in said
    assert stderr.without_jax_start(said) == "mine 1\n"


def test_a_traceback_of_the_program_is_kept(written):
    said = stderr.without_jax_start(written(last_line="raise ValueError('planted')"))
    assert "no GPU" not in said
    assert said.startswith("mine 1\nTraceback (most recent call last):\n")
    assert said.endswith("ValueError: planted\n")


def test_nothing_is_dropped_where_jax_starts_silently(monkeypatch):
    monkeypatch.setattr(stderr, "_jax_start", lambda: ())
    assert stderr.without_jax_start("Traceback\nmine 1\n") == "Traceback\nmine 1\n"
