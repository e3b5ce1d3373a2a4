import json

import numpy as np
import pytest

from gxdistill import package
from gxdistill.errors import UserError
from gxdistill.package import segmenter as files
from tests import packages, segmenters
from tests.packages import bits, members, repack


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("segmenter") / "tiny.gxs"
    files.save_segmenter(path, segmenters.make())
    return path


@pytest.fixture
def copy(saved, tmp_path):
    path = tmp_path / "copy.gxs"
    path.write_bytes(saved.read_bytes())
    return path


def test_what_is_saved_is_loaded_bit_for_bit(saved):
    given, loaded = segmenters.make(), files.load_segmenter(saved)
    assert bits(loaded.params) == bits(given.params)
    fields = dict(vars(loaded.manifest))
    assert set(fields.pop("arrays")) > {"start.heads_0.kernel"}
    assert fields == {k: v for k, v in vars(given.manifest).items() if k != "arrays"}
    assert loaded.sha256 == package.digest(saved)


def test_the_same_segmenter_gives_the_same_bytes(saved, tmp_path):
    files.save_segmenter(tmp_path / "again.gxs", segmenters.make())
    assert (tmp_path / "again.gxs").read_bytes() == saved.read_bytes()


def test_people_are_told_what_it_is(saved):
    card = members(saved)["README.md"].decode()
    assert "classes background, organ" in card
    assert "24 x 16 pixels" in card


def test_a_damaged_file_is_refused(copy):
    content = bytearray(copy.read_bytes())
    for at in range(0, len(content), max(1, len(content) // 40)):
        harmed = content.copy()
        harmed[at] ^= 1
        copy.write_bytes(harmed)
        with pytest.raises(UserError):
            files.load_segmenter(copy)


def _rewrite(copy, **changes):
    def change(parts):
        table = json.loads(parts["manifest.json"])
        for name, value in changes.items():
            part, _, last = name.rpartition("__")
            (table[part] if part else table)[last] = value
        parts["manifest.json"] = json.dumps(table).encode()

    repack(copy, change)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "package"}, "is no segmenter, but another package"),
        ({"schema_version": 2}, "field schema_version is 2; it must be 1"),
        ({"flips": "yes"}, "field flips is 'yes'"),
        ({"surprise": 1}, "has the unknown field surprise"),
        ({"network__name": "convnet"}, "its network is 'convnet'; known are unet"),
        ({"network__options": {"width": 4, "depth": 1}}, "the array start"),
        ({"network__options": {"width": 10**9}}, "no network here is as large"),
        ({"network__options": {"depth": 60}}, "too small for unet"),
        ({"network__options": {"layers": 3}}, "option of unet"),
        ({"class_names": ["background", "a", "b"]}, "the array start"),
        ({"patch__stride": 9}, "tiles of 8 px 9 px apart"),
        ({"patch__size": 0}, "field patch.size is 0"),
        ({"normalisation": {"mean": [0.5, 0.5], "std": [1, 1]}}, "does not fit 1 channels"),
        ({"image_normalisation": "magic"}, "field image_normalisation"),
    ],
)
def test_a_strangers_manifest_is_bounded_before_it_is_used(copy, changes, message):
    _rewrite(copy, **changes)
    with pytest.raises(UserError, match=message):
        files.load_segmenter(copy)


def test_weights_that_are_not_numbers_are_not_written(tmp_path):
    sound = segmenters.make()
    sound.params["heads_0"]["bias"][0] = np.nan
    with pytest.raises(UserError, match="its weights hold NaN or infinity"):
        files.save_segmenter(tmp_path / "x.gxs", sound)
    assert not list(tmp_path.iterdir())


def test_a_package_of_images_is_no_segmenter_and_no_segmenter_is_one(tmp_path, saved):
    package.save(tmp_path / "images.gxd", packages.make())
    with pytest.raises(UserError, match="is no segmenter, but another package"):
        files.load_segmenter(tmp_path / "images.gxd")
    with pytest.raises(UserError, match="unknown field flips"):
        package.load(saved)
