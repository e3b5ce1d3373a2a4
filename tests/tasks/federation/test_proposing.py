"""From two folders to a federation: what is written is read, and what is amiss is said."""

import numpy as np
import pytest
from PIL import Image

from gxdistill.cli import main
from gxdistill.cli.config import read
from gxdistill.errors import UserError
from gxdistill.jobs.job import Job
from gxdistill.jobs.workdir import Workdir
from gxdistill.tasks.federation import hospitals, proposing, settings


def _hospital(folder, count, rng):
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for i in range(count):
        mask = np.zeros((40, 48), np.uint8)
        mask[5 : 15 + i, 5:25] = 1
        pixels = np.uint8(rng.integers(0, 100, mask.shape) + 100 * mask)
        Image.fromarray(pixels).save(folder / f"images/{i}.png")
        Image.fromarray(255 * mask).save(folder / f"masks/{i}.png")


def test_two_folders_become_a_config_that_is_read(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    for name, count in (("north", 6), ("south", 8)):
        _hospital(tmp_path / name, count, rng)
    monkeypatch.chdir(tmp_path)
    main.main(["federate", "new", "north", "south", "--out=ours.py"])
    assert "south: 8 images with masks" in capsys.readouterr().err
    config = read("ours.py:smoke", [])
    settings.check(config)
    data = hospitals.of_job(Job(config, Workdir(tmp_path / "run"), print))
    assert data.names == ("north", "south")
    assert len(data.train.labels) + len(data.test.labels) == 14
    assert len({*data.train.patients, *data.test.patients}) == 14
    assert data.train.masks.max() == 1
    # A pixel of the foreground was made 100 grey values brighter.
    inside = data.train.masks == 1
    images = np.asarray(data.train.images)[..., 0]
    assert images[inside].mean() > images[~inside].mean() + 50


def test_what_is_amiss_is_said_and_nothing_written(tmp_path):
    rng, target = np.random.default_rng(0), tmp_path / "ours.py"
    north, south = tmp_path / "north", tmp_path / "south"
    _hospital(north, 2, rng)
    south.mkdir()
    with pytest.raises(UserError, match="south has no folder 'images'"):
        proposing.write([north, south], target)
    with pytest.raises(UserError, match="called north, north"):
        proposing.write([north, north], target)
    _hospital(tmp_path / "west", 2, rng)
    (tmp_path / "west/masks/1.png").unlink()
    with pytest.raises(UserError, match=r"1 have no mask in .*1\.png"):
        proposing.write([north, tmp_path / "west"], target)
    assert not target.exists()
    target.write_text("mine")
    with pytest.raises(UserError, match=r"ours\.py exists already"):
        proposing.write([north, tmp_path / "west"], target)
    assert target.read_text() == "mine"
