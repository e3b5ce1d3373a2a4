import dataclasses
import hashlib
import io
import os
import random
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from PIL import Image

from gxdistill import package
from gxdistill.errors import UserError
from gxdistill.package import content
from tests import killing
from tests.packages import B, C, H, S, bits, change, content_bits, make, members, repack
from tests.stderr import without_jax_start

ROOT = Path(__file__).parents[2]


def _run(script, *arguments, **options):
    command = [sys.executable, "-W", "error", "-c", script, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, **options)


def test_a_package_comes_back_as_it_was(saved):
    expected, loaded = make(), package.load(saved)
    assert bits(loaded.distilled) == bits(expected.distilled)
    assert bits(loaded.start) == bits(expected.start)
    assert isinstance(loaded.distilled.images, jax.Array)
    assert dataclasses.replace(loaded.manifest, arrays={}) == expected.manifest
    assert loaded.manifest.schema_version == package.SCHEMA_VERSION
    assert sorted(loaded.manifest.arrays) == [
        *("images", "labels", "log_lr"),
        *("start.params.Dense_0.bias", "start.params.Dense_0.kernel"),
    ]
    assert package.verify(saved)[1:] == (False, None)


def test_a_random_init_has_no_start(tmp_path):
    made = make()
    random = change(made, init=package.Init("random", None))
    package.save(tmp_path / "p", dataclasses.replace(random, start=None))
    loaded = package.load(tmp_path / "p")
    assert loaded.start is None
    assert "random ones, of any seed" in package.describe(loaded, tmp_path / "p")


def test_a_start_of_low_precision_comes_back(tmp_path):
    start = {"w": np.array([1.5, -0.0], ml_dtypes.bfloat16)}
    package.save(tmp_path / "p", package.Package(make().distilled, make().manifest, start))
    assert bits(package.load(tmp_path / "p").start) == bits(start)


def test_equal_packages_have_equal_bytes_at_any_time_and_place(saved, tmp_path):
    package.save(tmp_path / "again", package.load(saved))
    other = tmp_path / "quite" / "elsewhere.gxd"
    script = (
        "import sys\nfrom pathlib import Path\nfrom gxdistill import package\n"
        "from tests.packages import make\npackage.save(Path(sys.argv[1]), make())"
    )
    done = _run(script, other)
    assert without_jax_start(done.stderr) == ""
    assert saved.read_bytes() == other.read_bytes() == (tmp_path / "again").read_bytes()
    assert package.digest(saved) == package.digest(other) == package.load(saved).sha256
    package.save(other, make(1))
    assert package.digest(saved) != package.digest(other)
    assert os.listdir(other.parent) == ["elsewhere.gxd"]


@pytest.mark.slow
def test_a_package_made_on_eight_devices_is_that_made_on_one(saved, tmp_path):
    script = """
import sys
from pathlib import Path
import jax
jax.config.update("jax_num_cpu_devices", 8)
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from gxdistill import package
from tests.packages import make
mesh = Mesh(jax.devices(), ("rows",))
made = make()
everywhere, in_rows = NamedSharding(mesh, P()), NamedSharding(mesh, P(None, None, "rows"))
distilled = jax.device_put(made.distilled, everywhere)
distilled = distilled.replace(images=jax.device_put(made.distilled.images, in_rows))
assert len(distilled.images.addressable_shards) == 8
package.save(Path(sys.argv[1]), package.Package(distilled, made.manifest, made.start))
"""
    done = _run(script, tmp_path / "p.gxd")
    assert without_jax_start(done.stderr) == ""
    assert (tmp_path / "p.gxd").read_bytes() == saved.read_bytes()


def test_tools_of_others_open_it_and_find_it_whole(saved, tmp_path):
    with zipfile.ZipFile(saved) as file:
        assert file.testzip() is None
        file.extractall(tmp_path)
    command = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    subprocess.run(command, cwd=tmp_path, check=True)
    digest = hashlib.sha256((tmp_path / "SHA256SUMS").read_bytes()).hexdigest()
    assert digest == package.digest(saved)
    from orbax.checkpoint import v1 as ocp

    found = ocp.load(tmp_path / "arrays")
    assert found["images"].tobytes() == make().distilled.images.tobytes()
    assert bits(found["start"]) == bits(make().start)


def test_the_size_is_that_of_the_file(saved):
    assert package.size_bytes(saved) == len(saved.read_bytes())
    assert 4 * S * B * H * H * C < package.size_bytes(saved) < 24_576


def test_previews_show_the_images(saved):
    from gxdistill.package.previews import png, previews

    shown = {name: part for name, part in members(saved).items() if name.startswith("previews/")}
    assert len(shown) == 6
    for name, part in shown.items():
        step, place = int(name[13:16]), int(name[22:25])
        image = make().distilled.images[step, place, :, :, 0]
        low, high = image.min(), image.max()
        with Image.open(io.BytesIO(part)) as picture:
            drawn = np.asarray(picture.convert("L")) / 17
        np.testing.assert_allclose(drawn, 15 * (image - low) / (high - low), atol=0.51)
    for shape, size in (((299, 299, 1), (59, 59)), ((5, 3, 3), (3, 5)), ((64, 129, 1), (43, 21))):
        image = np.random.default_rng(0).normal(size=shape)
        with Image.open(io.BytesIO(png(image))) as picture:
            picture.load()
            assert picture.size == size
    with Image.open(io.BytesIO(png(np.ones((4, 4, 1))))) as picture:
        assert not np.asarray(picture).any()
    images = np.zeros((1000, 4, 2, 2, 1))
    assert [*previews(images)][-1] == "step999_image003.png"
    assert len(png(np.zeros((64, 64, 3)))) < 2200


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"privacy": 4}, "field privacy is 4; it must be a text"),
        ({"patch": 4}, "field patch is 4; it must be a table"),
        ({"class_names": ("a", "b")}, r"labels are float32 \[2, 4, 3\]"),
        ({"init": package.Init("random", None)}, "must not hold the arrays start"),
    ],
)
def test_a_package_that_could_not_be_read_is_not_written(tmp_path, fields, reason):
    made = make()
    with pytest.raises(UserError, match=reason):
        package.save(tmp_path / "p", change(made, **fields))
    made.distilled.images[0, 0, 0, 0, 0] = np.nan
    with pytest.raises(UserError, match="images hold NaN or infinity"):
        package.save(tmp_path / "p", made)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_hold_a_package_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "package", tmp_path / "folder"):
        with pytest.raises(UserError, match=r"could not be written: .*[a-z] folder|Is a directory"):
            package.save(path, make())
    assert (tmp_path / "file").read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_a_full_disk_is_told_in_a_line_and_leaves_the_old_package(copy):
    script = """
import resource, sys
from pathlib import Path
from gxdistill import package
from gxdistill.errors import UserError
from tests.packages import make
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
try:
    package.save(Path(sys.argv[1]), make(1))
except UserError as error:
    print(error)
"""
    before = copy.read_bytes()
    done = _run(script, copy)
    assert without_jax_start(done.stderr) == ""
    assert done.stdout == (
        f"{copy} could not be written: File too large. Make room or choose another place; nothing "
        f"was half written.\n"
    )
    assert os.listdir(copy.parent) == ["tiny.gxd"]
    assert copy.read_bytes() == before


@pytest.mark.parametrize("kills", [15, pytest.param(200, marks=pytest.mark.slow)])
def test_a_killed_writer_leaves_the_old_or_the_new_package(tmp_path, kills):
    path, rng = tmp_path / "p.gxd", random.Random(0)
    source = f"""
import os
from itertools import cycle
from pathlib import Path
from gxdistill import package
from orbax.checkpoint import v1
from tests.packages import make

def work():
    for seed in cycle((1, 2) if os.urandom(1) < b"\\x80" else (2, 1)):
        package.save(Path({str(path)!r}), make(seed))
"""
    package.save(path, make(1))
    expected = {}
    for seed in (1, 2):
        package.save(tmp_path / "whole.gxd", make(seed))
        expected[f"tiny{seed}"] = content_bits(package.load(tmp_path / "whole.gxd"))
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
            found.add(loaded.manifest.name)
            assert content_bits(loaded) == expected[loaded.manifest.name]
    assert found == {"tiny1", "tiny2"}
    package.save(path, make(1))
    assert sorted(os.listdir(tmp_path)) == ["p.gxd", "whole.gxd"]


def test_no_part_but_the_signature_escapes_the_sums(copy):
    names = {*members(copy)} - {content.SUMS}
    listed = {line.split("  ")[1] for line in members(copy)[content.SUMS].decode().splitlines()}
    assert listed == names
    for name in sorted(names):
        before = copy.read_bytes()
        repack(copy, lambda files, name=name: files.update({name: b"x"}), sums=False)
        with pytest.raises(UserError, match="was changed after it was written"):
            package.load(copy)
        copy.write_bytes(before)
