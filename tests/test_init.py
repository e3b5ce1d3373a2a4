"""The library's public face: what `gxdistill` and its folders promise is there and explained."""

import importlib
import pkgutil
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import gxdistill

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/python.md").read_text("utf-8")
FOLDERS = ("data", "distill", "evaluation", "models", "package", "receive", "training")
PACKAGES = ("gxdistill", *(f"gxdistill.{folder}" for folder in FOLDERS))
NAMES = [
    (package, name) for package in PACKAGES for name in importlib.import_module(package).__all__
]


def _is_constant(value):
    return isinstance(value, str | int | tuple | dict)


@pytest.mark.parametrize(("package", "name"), NAMES)
def test_a_promised_name_is_there_and_explained(package, name):
    value = getattr(importlib.import_module(package), name)
    if _is_constant(value):
        assert name.isupper()
    elif typing.get_origin(value) is None:  # A type's short name, as `MetaGradient`, has no text.
        home = importlib.import_module(value.__module__)
        assert home.__name__.startswith("gxdistill.")
        assert getattr(home, value.__name__) is value
        assert value.__doc__
        # Python's own text for a tuple or data class that has none.
        assert not value.__doc__.startswith(f"{value.__name__}(")
        assert re.search(rf"(?:def|class) {value.__name__}\b", Path(home.__file__).read_text())


@pytest.mark.parametrize("package", PACKAGES)
def test_the_page_lists_each_name_that_there_is_and_no_other(package):
    section = PAGE.split(f"\n### `{package}`\n")[1].split("\n###")[0]
    rows = re.findall(r"^\| (.*?) \|", section, re.M)[2:]
    promised = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(promised) == sorted(importlib.import_module(package).__all__)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_lists_its_names_before_they_are_loaded(package):
    code = f"import sys, {package}; print(*dir(sys.modules['{package}']))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert set(importlib.import_module(package).__all__) <= set(done.stdout.split())


# `package` has all its modules loaded before it puts functions in the place of two of them.
@pytest.mark.parametrize("package", [name for name in PACKAGES if name != "gxdistill.package"])
def test_no_name_is_that_of_a_module_beside_it(package):
    # The import of such a module would put it in the name's place.
    module = importlib.import_module(package)
    modules = {found.name for found in pkgutil.iter_modules(module.__path__)}
    assert modules.isdisjoint(module.__all__)


def test_there_are_not_too_many_names_to_learn():
    assert 30 <= len(gxdistill.__all__) <= 40


@pytest.mark.parametrize(
    ("package", "heavy"),
    [
        *((f"gxdistill.{folder}", "jax") for folder in ("data", "distill", "evaluation")),
        *((f"gxdistill.{folder}", "jax") for folder in ("receive", "training")),
    ],
)
def test_a_folder_loads_its_names_when_they_are_used(package, heavy):
    code = f"import sys, {package}; assert '{heavy}' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'gxdistill' has no attribute 'unrol'"):
        gxdistill.unrol  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'unrol'"):
        from gxdistill.distill import unrol  # noqa: F401


def test_a_name_of_the_root_is_that_of_its_folder():
    from gxdistill import models, receive

    assert gxdistill.create_network is models.create
    assert gxdistill.predict_images is receive.predict
