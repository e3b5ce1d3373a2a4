"""Configs: by file and by name, from anywhere, and changed by flags."""

import subprocess
import sys
from pathlib import Path

import pytest

from gxdistill.cli import config
from gxdistill.errors import UserError
from tests import small_jobs

CONFIGS = sorted((small_jobs.ROOT / "configs").glob("*.py"))


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty folder to stand in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_that_comes_along_is_found_by_its_name_from_anywhere(path):
    assert Path(config.locate(path.stem)) == path
    assert config.locate(f"{path.stem}:smoke") == f"{path}:smoke"
    assert config.read(f"{path.stem}:smoke", []) == config.read(f"{path}:smoke", [])


def test_a_file_goes_before_a_name_and_a_name_before_a_folder(folder):
    (folder / "gastric").mkdir()
    assert Path(config.locate("gastric")) == small_jobs.ROOT / "configs/gastric.py"
    (folder / "demo").write_text("def get_config(): ...")
    assert config.locate("demo") == "demo"
    (folder / "configs").mkdir()
    (folder / "configs/demo.py").write_text("")
    assert config.locate("configs/demo.py:smoke") == "configs/demo.py:smoke"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("radigraph:random", "radiograph:random"),
        ("configs/mnist.py", "mnist"),
        ("somewhere/demoo.py:smoke", "demo:smoke"),
    ],
)
def test_what_is_neither_is_refused_with_the_nearest(typed, meant):
    with pytest.raises(UserError) as error:
        config.read(typed, [])
    assert str(error.value) == (
        f"--config={typed} cannot be read: there is no such file, and no config of this name. Did "
        f"you mean {meant}? Configs that come along: demo, federation, "
        f"gastric, mixup, mnist, radiograph, segmentation, sharing."
    )


def test_settings_are_changed_and_no_others():
    plain = config.read("demo:smoke", [])
    changes = ["--config.seed=7", "--config.patch.border=true", "--config.data.label_names=a,b"]
    changed = config.read("demo:smoke", changes)
    assert (changed.seed, changed.patch.border) == (7, True)
    assert changed.data.label_names == ("a", "b")
    changed = changed.copy_and_resolve_references()
    with changed.unlocked():
        changed.seed, changed.patch.border = plain.seed, plain.patch.border
        changed.data.label_names = plain.data.label_names
    assert changed.to_dict() == plain.to_dict()


def test_a_default_is_taken_where_none_is_named():
    assert config.read(None, []) is None
    assert config.read(None, ["--config.seed=7"], "demo").seed == 7
    assert config.read("gastric", [], "demo").name == "gastric"
    with pytest.raises(UserError, match="--config is missing"):
        config.read(None, ["--config.seed=7"])


def test_reading_a_config_leaves_jax_to_the_command():
    """Which tells it by the environment where to run and what to keep, before it is imported."""
    code = (
        "import sys; from gxdistill.cli import config; "
        "assert config.read('demo', ['--config.seed=7']).seed == 7; assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=small_jobs.ROOT, check=True)
