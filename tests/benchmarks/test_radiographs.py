import csv
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from benchmarks import radiographs
from gxdistill.cli import config as configs
from gxdistill.data.files import images
from gxdistill.errors import UserError
from gxdistill.jobs import kinds

SIZE = (60, 40)  # Width and height; the originals are not square either.


def _save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def _half(left):
    mask = np.zeros(SIZE[::-1], bool)
    mask[10:30, slice(5, 25) if left else slice(35, 55)] = True
    return mask


@pytest.fixture
def originals(tmp_path):
    """An imitation: 8 + 8 of Montgomery, 8 + 8 of Shenzhen, one more of which has no mask."""
    rng = np.random.default_rng(0)
    for site, prefix in (("MontgomerySet", "MCUCXR"), ("ChinaSet_AllFiles", "CHNCXR")):
        for i in range(16 + (prefix == "CHNCXR")):
            name = f"{prefix}_{i:04}_{i % 2}"
            pixels = rng.integers(0, 256, SIZE[::-1], np.uint8)
            _save(tmp_path / site / f"CXR_png/{name}.png", pixels)
            if prefix == "MCUCXR":
                for left, side in ((True, "leftMask"), (False, "rightMask")):
                    _save(tmp_path / site / f"ManualMask/{side}/{name}.png", _half(left))
            elif i < 16:
                both = 255 * (_half(True) | _half(False)).astype(np.uint8)
                _save(tmp_path / f"mask/{name}_mask.png", both)
    return tmp_path


def _rows(folder):
    with (folder / "labels.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_folder_has_the_columns_sizes_and_split_that_the_config_expects(originals, capsys):
    radiographs.main([str(originals)])
    folder = originals / "cxr_tb_lung"
    assert f"{folder}: 32 radiographs" in capsys.readouterr().out
    rows = _rows(folder)
    assert tuple(rows[0]) == radiographs.FIELDS
    assert len(rows) == len({row["id"] for row in rows}) == 32
    assert Counter((row["site"], row["label"], row["split"]) for row in rows) == {
        (site, label, part): count
        for site in ("Montgomery", "Shenzhen")
        for label in "01"
        for part, count in (("train", 6), ("test", 2))
    }
    for row in rows:
        assert row["label"] == row["id"][-1]
        assert row["label_name"] == ("normal", "tuberculosis")[int(row["label"])]
        with Image.open(folder / f"images/{row['id']}.jpg") as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "L", (512, 512))
        with Image.open(folder / f"masks/{row['id']}.png") as mask:
            assert (mask.mode, mask.size) == ("1", (512, 512))
        # Both sites' masks are the same two rectangles: 2 x 20 x 20 of 60 x 40 pixels.
        assert float(row["lung_fraction"]) == pytest.approx(800 / 2400, abs=0.01)
        assert images.read_mask(folder / f"masks/{row['id']}.png")[256, 128]  # the left one
    assert not list(originals.glob(".cxr*"))


def test_masks_are_found_as_they_come_out_of_their_archive(originals):
    before = radiographs.find(originals)
    (originals / "mask").rename(originals / "inner")
    (originals / "mask").mkdir()
    (originals / "inner").rename(originals / "mask/mask")
    after = radiographs.find(originals)
    assert [original.name for original in after] == [original.name for original in before]


def test_a_job_reads_the_folder(originals):
    radiographs.main([str(originals)])
    fields = [f"--config.data.path={originals}"]
    config = configs.read("radiograph:smoke", fields)
    cohort = kinds.load(config, print).cohort
    assert cohort.images.shape == (32, 64, 64, 1)
    assert sorted(Counter(cohort.labels.tolist()).values()) == [16, 16]


def test_the_seed_alone_draws_the_split(originals):
    images = radiographs.find(originals)
    assert radiographs.split(images, 1) == radiographs.split(images[::-1], 1)
    assert radiographs.split(images, 1) != radiographs.split(images, 2)


def test_the_split_is_that_of_the_recorded_figures(data_root):
    path = data_root / "cxr_tb_lung/labels.csv"
    with path.open() as file:
        rows = list(csv.DictReader(file))
    images = [
        radiographs.Original(row["id"], row["site"], int(row["label"]), path, ()) for row in rows
    ]
    assert radiographs.split(images) == {row["id"]: row["split"] for row in rows}


def test_an_image_becomes_a_square_of_box_averages(tmp_path):
    blocks = np.kron(np.array([[0, 255], [100, 200]], np.uint8), np.ones((600, 700), np.uint8))
    _save(tmp_path / "a.png", blocks)
    _save(tmp_path / "m.png", blocks > 150)
    original = radiographs.Original("a", "Shenzhen", 0, tmp_path / "a.png", (tmp_path / "m.png",))
    pixels, lungs = radiographs.convert(original)
    expected = np.kron(np.array([[0, 255], [100, 200]]), np.ones((256, 256), int))
    np.testing.assert_array_equal(pixels, expected)
    np.testing.assert_array_equal(lungs, expected > 150)


@pytest.mark.parametrize(
    ("gone", "reason"),
    [
        ("mask", r"no such folder: \S+mask\. Unpack"),
        ("MontgomerySet", r"no such folder: \S+CXR_png, \S+leftMask, \S+rightMask\. Unpack"),
        (
            "MontgomerySet/ManualMask/leftMask/MCUCXR_0003_1.png",
            "no left or no right mask in",
        ),
        ("mask/*.png", r"has a mask NAME_mask.png of no image"),
        ("ChinaSet_AllFiles/CXR_png/*.png", "there are no PNG images in"),
    ],
)
def test_what_is_missing_is_named(originals, gone, reason):
    for path in sorted(originals.glob(gone)):
        path.rename(originals / f"moved_{path.name}")
    with pytest.raises(UserError, match=reason):
        radiographs.find(originals)


def test_a_name_without_a_label_is_refused(originals):
    folder = originals / "ChinaSet_AllFiles/CXR_png"
    (folder / "CHNCXR_0001_1.png").rename(folder / "CHNCXR_0001_2.png")
    with pytest.raises(UserError, match=r"CHNCXR_0001_2.png: the name must end in _0"):
        radiographs.find(originals)


def test_a_damaged_original_leaves_nothing_behind(originals):
    path = originals / "ChinaSet_AllFiles/CXR_png/CHNCXR_0001_1.png"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(SystemExit, match=r"benchmarks.radiographs: .*CHNCXR_0001_1"):
        radiographs.main([str(originals)])
    assert not list(originals.glob("*cxr_tb_lung*"))


def test_a_folder_that_is_there_is_kept(originals):
    (originals / "cxr_tb_lung").mkdir()
    with pytest.raises(SystemExit, match="is there already"):
        radiographs.main([str(originals)])
