"""What is installed from a wheel works in an empty folder, far from the checkout."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gxdistill
from tests import small_jobs


def _pip(*arguments):
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this checkout; pip fetches what builds it."""
    folder = tmp_path_factory.mktemp("dist")
    _pip("wheel", "--no-deps", f"--wheel-dir={folder}", str(small_jobs.ROOT))
    (path,) = folder.iterdir()
    return path


@pytest.fixture(scope="module")
def gxdistill_in(wheel, tmp_path_factory):
    """Runs the installed command in a folder.

    The environment is a new one, but for the libraries: those of this environment are lent to it.
    """
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=False, symlinks=True)
    (site,) = home.glob("lib/python*/site-packages")
    lent = [path for path in sys.path if Path(path).name == "site-packages"]
    (site / "lent.pth").write_text("\n".join(lent))
    _pip(f"--python={home / 'bin/python'}", "install", "--no-deps", str(wheel))
    # Neither this environment's paths nor the folder that pytest stands in.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}

    def run(folder, *arguments):
        done = subprocess.run(
            [home / "bin/gxdistill", *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert str(small_jobs.ROOT) not in done.stdout + done.stderr
        return done.stdout

    return run


def test_the_wheel_holds_the_package_and_its_configs_and_nothing_beside_them(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names} == {
        "gxdistill",
        f"gxdistill-{gxdistill.__version__}.dist-info",
    }
    sources = {"gxdistill": "gxdistill", "configs": "gxdistill/configs"}
    for source, place in sources.items():
        folder = small_jobs.ROOT / source
        paths = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
        wanted = {path.as_posix() for path in paths if "__pycache__" not in path.parts}
        assert {f"{place}/{path}" for path in wanted} <= set(names)


def test_the_installed_command_finds_the_configs_that_come_along(gxdistill_in, tmp_path):
    assert gxdistill_in(tmp_path, "--version") == f"gxdistill {gxdistill.__version__}\n"
    configs = "demo, federation, gastric, mixup, mnist, radiograph, segmentation, sharing"
    assert f"--config=NAME: {configs}.\n" in gxdistill_in(tmp_path, "--help")
    folder = tmp_path / "empty"
    folder.mkdir()
    gxdistill_in(folder, "preview", "--config=demo:smoke")
    assert [path.name for path in (folder / "runs/demo_smoke").iterdir()] == ["preview.html"]


@pytest.mark.slow
def test_the_demo_runs_in_an_empty_folder_and_its_package_decides_images(gxdistill_in, tmp_path):
    assert "all_patches" in gxdistill_in(tmp_path, "demo", "--config=demo:smoke")
    package = "runs/demo_smoke/package.gxd"
    assert (tmp_path / "runs/demo_smoke/report.html").is_file()
    assert ": whole: no part was damaged" in gxdistill_in(tmp_path, "verify", package)
    pixels = np.random.default_rng(0).integers(0, 256, (128, 128), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    assert "image.png: " in gxdistill_in(tmp_path, "predict", package, "image.png")
    assert (tmp_path / "predictions/predictions.csv").is_file()
