"""Packages that would take more than the receiver has: refused before anything is run."""

import dataclasses
import json
import time

import numpy as np
import pytest
from PIL import Image

from gxdistill import package
from gxdistill.cli import main
from gxdistill.cli.budgets import size
from gxdistill.errors import UserError
from gxdistill.package.cost import Cost
from gxdistill.receive import budget, networks, predicting
from tests.commands import refusal
from tests.packages import change


@pytest.fixture(scope="module")
def sound(run):
    return package.load(run / "package.gxd")


@pytest.fixture
def image(sound, tmp_path):
    side = sound.manifest.patch.image_height * sound.manifest.patch.downscale
    pixels = np.random.default_rng(0).integers(0, 256, (side, side), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "i.png")
    return tmp_path / "i.png"


def _for_any(content, **network):
    """The package for any initial weights, of another network if one is given."""
    fresh = change(content, init=package.Init("random", None), proof=None)
    if network:
        fresh = change(fresh, network=package.NetworkChoice("convnet", network))
    return dataclasses.replace(fresh, start=None)


def _many(content):
    return change(_for_any(content), "decision", networks=2**31 - 1)


def _padded(content):
    way = package.Reading("file", None, "pad", "keep", (8,))
    large = change(_for_any(content), "patch", image_height=16384, image_width=16384, stride=1)
    return change(large, reading=way)


@pytest.mark.parametrize(
    ("harm", "flag"), [(_many, "--max-memory"), (_padded, "--max-memory")], ids=["many", "padded"]
)
def test_a_prediction_beyond_all_machines_is_refused_at_once(tmp_path, sound, image, harm, flag):
    package.save(tmp_path / "p.gxd", harm(sound))
    began = time.process_time()
    line = refusal("predict", str(tmp_path / "p.gxd"), str(image), f"--out={tmp_path / 'out'}")
    assert time.process_time() - began < 10
    assert "would take an estimated" in line
    assert "over the limit of" in line
    assert flag in line
    assert not (tmp_path / "out").exists()


def test_a_replay_beyond_the_budget_is_refused_and_verify_says_so(tmp_path, sound, capsys):
    path = tmp_path / "p.gxd"
    package.save(path, _for_any(sound, width=4096, depth=1))
    command = ("train", f"--package={path}", f"--workdir={tmp_path / 'w'}", "--seeds=1")
    line = refusal(*command, "--max-memory=50MiB")
    assert "training 1 network(s) convnet on demo_smoke would take an estimated 16" in line
    assert "over the limit of 50 MiB" in line
    assert "raise it by --max-memory" in line
    assert "over the limit of 0.0001 s" in refusal(*command, "--max-seconds=0.0001")
    assert not (tmp_path / "w/networks").exists()
    with pytest.raises(UserError, match="over the limit of 1 MiB"):
        networks.train_each(path, ["convnet"], budget=budget.Budget(1 << 20))
    package.save(path, _many(sound))
    main.main(["verify", str(path)])
    said = capsys.readouterr().out
    assert "training 2147483647 network(s): an estimated" in said
    assert "REFUSED, but with a higher --max-memory and --max-seconds" in said


def test_what_the_zoo_cannot_make_is_no_package(tmp_path, sound):
    for options in ({"width": 65536, "depth": 2}, {"width": 2**40}, {"depth": 60}):
        path = tmp_path / "p.gxd"
        with pytest.raises(UserError, match="network: "):
            package.save(path, _for_any(sound, **options))


def test_a_budget_that_suffices_changes_nothing(tmp_path, run, image):
    little = budget.Budget(1 << 30, 100)
    path = run / "package.gxd"
    rows = predicting.predict(path, [image], tmp_path / "a", print, budget=little)
    assert rows == predicting.predict(path, [image], tmp_path / "b", print)


def test_predict_says_whether_the_network_is_the_senders(tmp_path, run, image):
    lines = []
    predicting.predict(run / "package.gxd", [image], tmp_path / "a", lines.append)
    assert "the sender's network, bit for bit" in lines


def test_class_names_are_no_formulas_in_the_tables(tmp_path, sound, image):
    names = ("irrelevant", "=cmd|' /C calc'!A0", "+1+1")
    package.save(tmp_path / "p.gxd", change(sound, class_names=names))
    predicting.predict(tmp_path / "p.gxd", [image], tmp_path / "out", print)
    text = (tmp_path / "out/predictions.csv").read_text()
    assert ",'" in text
    assert ",=" not in text
    assert ",+" not in text
    rows = json.loads((tmp_path / "out/predictions.json").read_text())["images"]
    assert rows[0]["decision"] in names  # Programs read it as it is.


def test_sizes_and_limits_are_read_and_written():
    assert (size("500MiB"), size("1.5GiB")) == (500 * 2**20, 1.5 * 2**30)
    assert budget.as_size(1.5 * 2**30) == "1.5 GiB"
    assert 0 < budget.default_memory() < 2**50
    for value in ("5", "GiB", "-1GiB", "1e9MiB", "5GB", "nanMiB"):
        assert "is no size such as 500MiB" in refusal("train", f"--max-memory={value}")
    budget.check("x", Cost(10, 1), budget.Budget(10, 1))
    with pytest.raises(UserError, match="x would take an estimated"):
        budget.check("x", Cost(11, 1), budget.Budget(10, 1))
