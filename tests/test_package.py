import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest

from gxdistill import package
from gxdistill.errors import UserError
from gxdistill.pytrees import Distilled
from tests import killing

ROOT = Path(__file__).parents[1]
S, E, B, H, C, K = 2, 3, 4, 8, 1, 3


def make(seed=0):
    """A small package; other processes make it too, by importing this file."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    figure = {"mean": 0.781, "std": 0.0123, "n": 5, "low": 0.7, "high": 0.85}
    manifest = {
        "name": f"tiny{seed}",
        "network": {"name": "convnet", "options": {"width": 32, "norm": "group"}},
        "init": {"rule": "known", "seed": 3},
        "distillation": {
            "steps": S,
            "epochs": E,
            "images_per_step": B,
            "label_rule": "softmax",
            "loss": "cross_entropy",
            "started_from": "noise",
            "outer_steps": 400,
            "settings": {"networks": 1, "optimizer": {"lr": 0.01}},
        },
        "patch": {
            "size": H,
            "stride": 4,
            "border": True,
            "irrelevant_below": 0.01,
            "inside_above": 0.85,
            "image_height": 64,
            "image_width": 48,
            "channels": C,
            "downscale": 2,
        },
        "normalisation": {"mean": [0.5], "std": [0.25]},
        "class_names": ["irrelevant", "negative", "positive"],
        "decision": {"rule": "soft", "tau": 0.4375, "networks": 5},
        "results": {"images": {"auc": None, "hm": figure, "undecidable": 1.0}},
        "privacy": "No guarantee is given by this test. " * 5,
    }
    distilled = Distilled(normal(S, B, H, H, C), normal(S, B, K), normal(S * E))
    start = {"params": {"Dense_0": {"kernel": normal(5, K), "bias": normal(K)}}}
    return package.Package(distilled, manifest, start)


def _bits(tree):
    leaves = jax.tree.map(np.asarray, tree)
    return jax.tree.map(lambda leaf: (leaf.dtype, leaf.shape, leaf.tobytes()), leaves)


def content_bits(content):
    return _bits(content.distilled), _bits(content.start), content.manifest


def file_bytes(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "package"
    package.save(path, make())
    return path


@pytest.fixture
def copy(saved, tmp_path):
    """A copy to be harmed."""
    return Path(shutil.copytree(saved, tmp_path / "package"))


def test_a_package_comes_back_as_it_was(saved):
    expected, loaded = make(), package.load(saved)
    assert _bits(loaded.distilled) == _bits(expected.distilled)
    assert _bits(loaded.start) == _bits(expected.start)
    assert isinstance(loaded.distilled.images, jax.Array)
    added = {"schema_version", "arrays", "sha256"}
    assert {k: v for k, v in loaded.manifest.items() if k not in added} == expected.manifest
    assert loaded.manifest["schema_version"] == 1
    assert sorted(loaded.manifest["arrays"]) == [
        *("images", "labels", "log_lr"),
        *("start.params.Dense_0.bias", "start.params.Dense_0.kernel"),
    ]
    package.verify(saved)


def test_a_random_init_has_no_start(tmp_path):
    content = make()
    manifest = {**content.manifest, "init": {"rule": "random", "seed": None}}
    package.save(tmp_path / "p", package.Package(content.distilled, manifest))
    assert package.load(tmp_path / "p").start is None
    assert "random ones, of any seed" in package.describe(
        package.load(tmp_path / "p"), tmp_path / "p"
    )


def test_a_start_of_low_precision_comes_back(tmp_path):
    start = {"w": np.array([1.5, -0.0], ml_dtypes.bfloat16)}
    package.save(tmp_path / "p", package.Package(make().distilled, make().manifest, start))
    assert _bits(package.load(tmp_path / "p").start) == _bits(start)


def test_equal_packages_have_equal_bytes_at_any_time_and_place(saved, tmp_path):
    package.save(tmp_path / "again", package.load(saved))
    other = tmp_path / "quite" / "elsewhere"
    script = (
        "import sys\nfrom pathlib import Path\nfrom gxdistill import package\n"
        "from tests.test_package import make\npackage.save(Path(sys.argv[1]), make())"
    )
    command = [sys.executable, "-W", "error", "-c", script, str(other)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stderr == ""
    assert file_bytes(saved) == file_bytes(other) == file_bytes(tmp_path / "again")
    assert package.digest(saved) == package.digest(other)
    package.save(other, make(1))
    assert package.digest(saved) != package.digest(other)


def test_the_size_is_that_of_allfile_bytes(saved):
    assert package.size_bytes(saved) == sum(map(len, file_bytes(saved).values()))
    assert 4 * S * B * H * H * C < package.size_bytes(saved) < 16_384


def test_a_description_says_what_people_ask(saved):
    text = package.describe(package.load(saved), saved)
    rates = np.exp(make().distilled.log_lr.astype(float))
    for part in (
        "tiny0 (schema version 1)",
        "convnet, norm group, width 32",
        "the known ones of seed 3, included",
        "2 steps x 3 epochs of SGD on cross_entropy",
        "8 of 8 x 8 x 1, 4 a step",
        "noise, learned in 400 outer steps",
        "softmax of learned logits",
        f"min {rates.min():.4g}, median {np.median(rates):.4g}, max {rates.max():.4g}",
        "mean 0.5; std 0.25 of pixel / 255",
        "8 px at stride 4, the far edges too",
        "images of 64 x 48 px, shrunken 2 times",
        "irrelevant, negative, positive",
        "soft, tau 0.4375",
        "images.hm 0.781 +- 0.0123 (0.7 to 0.85)",
        "images.auc undefined",
        "images.undecidable 1",
        f"{package.size_bytes(saved)} bytes: arrays ",
        package.digest(saved),
    ):
        assert part in text
    assert " ".join(text.split()).count("No guarantee is given by this test.") == 5
    assert max(map(len, text.splitlines())) <= 96


def test_real_images_are_called_by_name(tmp_path):
    content = make()
    content.manifest["distillation"]["started_from"] = "real"
    package.save(tmp_path / "p", content)
    text = package.describe(package.load(tmp_path / "p"), tmp_path / "p")
    assert "REAL IMAGES OF PATIENTS" in text


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"privacy": 4}, "field privacy is 4; it must be a text"),
        ({"more": 4}, "unknown field more"),
        ({"class_names": ["a", "b"]}, r"labels are float32 \[2, 4, 3\]"),
        ({"init": {"rule": "random", "seed": None}}, "must not hold the arrays start"),
    ],
)
def test_a_package_that_could_not_be_read_is_not_written(tmp_path, change, reason):
    content = make()
    changed = package.Package(content.distilled, {**content.manifest, **change}, content.start)
    with pytest.raises(UserError, match=reason):
        package.save(tmp_path / "p", changed)
    content.distilled.images[0, 0, 0, 0, 0] = np.nan
    with pytest.raises(UserError, match="images hold NaN or infinity"):
        package.save(tmp_path / "p", content)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_hold_a_package_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "package"):
        with pytest.raises(UserError, match=r"could not be written: .*is a file and no folder"):
            package.save(path, make())
    assert (tmp_path / "file").read_text() == "mine"


def test_a_full_disk_is_told_in_a_line_and_leaves_the_old_package(copy):
    script = """
import resource, sys
from pathlib import Path
from gxdistill import package
from gxdistill.errors import UserError
from tests.test_package import make
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
try:
    package.save(Path(sys.argv[1]), make(1))
except UserError as error:
    print(error)
"""
    before = file_bytes(copy)
    command = [sys.executable, "-W", "error", "-c", script, str(copy)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout == (
        f"{copy} could not be written: File too large. Make room or choose another place; nothing "
        f"was half written.\n"
    )
    assert os.listdir(copy.parent) == ["package"]
    assert file_bytes(copy) == before


@pytest.mark.parametrize("kills", [15, pytest.param(60, marks=pytest.mark.slow)])
def test_a_killed_writer_leaves_the_old_or_the_new_package(tmp_path, kills):
    path, rng = tmp_path / "package", random.Random(0)
    source = f"""
import os
from itertools import cycle
from pathlib import Path
from gxdistill import package
from orbax.checkpoint import v1
from tests.test_package import make

def work():
    for seed in cycle((1, 2) if os.urandom(1) < b"\\x80" else (2, 1)):
        package.save(Path({str(path)!r}), make(seed))
"""
    package.save(path, make(1))
    expected = {}
    for seed in (1, 2):
        package.save(tmp_path / "whole", make(seed))
        expected[f"tiny{seed}"] = content_bits(package.load(tmp_path / "whole"))
    found, done = set(), 0
    with killing.writers(source) as start:
        # A busy machine needs longer until a writer gets to write the other package.
        while done < kills or (len(found) < 2 and done < 10 * kills):
            done += 1
            pid = start()
            time.sleep(rng.uniform(0.1, 0.6) * (1 + done / kills))
            assert killing.is_alive(pid)
            killing.kill(pid)
            loaded = package.load(path)
            found.add(loaded.manifest["name"])
            assert content_bits(loaded) == expected[loaded.manifest["name"]]
    assert found == {"tiny1", "tiny2"}
    package.save(path, make(1))
    assert sorted(os.listdir(tmp_path)) == ["package", "whole"]
