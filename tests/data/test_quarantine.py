from collections import Counter

import numpy as np
import pytest
from PIL import Image

from gxdistill.data.files.reading import Recipe
from gxdistill.data.quarantine import TooManyBadError, describe_labels
from gxdistill.data.source import read_cohort
from gxdistill.errors import UserError
from tests import small_jobs


@pytest.fixture
def folder(tmp_path):
    small_jobs.write_cohort(tmp_path)
    return tmp_path


def _change(folder, old, new):
    path = folder / "manifest.csv"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_bad_rows_and_bad_files_are_told_at_once(folder):
    _change(folder, "p2", "")
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:-200])
    (folder / "5_mask.png").unlink()
    Image.new("L", (9, 9), 3).save(folder / "6.png")
    with pytest.raises(TooManyBadError) as error:
        read_cohort(folder, "manifest.csv")
    reasons = {bad.name: bad.reason for bad in error.value.quarantine}
    assert list(reasons) == ["2.png", "3.png", "5.png", "6.png"]
    assert reasons["2.png"] == "patient empty, or a word for a missing value as 'nan'"
    assert reasons["5.png"] == "mask: file missing"
    assert reasons["6.png"] == "image is 9x9 px, not 64x64 px"


def test_another_size_names_the_setting_and_the_flag(folder):
    with pytest.raises(
        TooManyBadError, match=r"8 of the images are 64x64 px, and data\.image_size"
    ):
        read_cohort(folder, "manifest.csv", recipe=Recipe((2048, 2048)))
    with pytest.raises(TooManyBadError, match=r"--config\.data\.image_size=None"):
        read_cohort(folder, "manifest.csv", recipe=Recipe((2048, 2048), fit="same"))


def test_labels_of_other_names_are_named_in_the_way_out(folder):
    for label, name in (("0", "healthy"), ("1", "ill")):
        _change(folder, f".png,{label},", f".png,{name},")
    with pytest.raises(TooManyBadError, match=r"--config\.data\.label_names=healthy,ill\."):
        read_cohort(folder, "manifest.csv")


def test_splits_are_called_otherwise_or_skipped_and_counted(folder):
    _change(folder, "p0,train", "p0,fit")
    _change(folder, "p1,train", "p1,")
    _change(folder, "p7,test", "p7,val")
    (folder / "7.png").rename(folder / "seven")  # Of a skipped row nothing is looked at.
    read = read_cohort(folder, "manifest.csv", splits={"fit": "train", "val": "skip"})
    assert read.quarantine == ()
    assert read.cohort.names.tolist() == ["0.png", "2.png", "3.png", "4.png", "5.png", "6.png"]
    assert read.cohort.splits.tolist() == ["train"] * 3 + ["test"] * 3
    assert "2 rows are skipped: their split is 'skip' or empty" in read.notes
    (folder / "seven").rename(folder / "7.png")
    with pytest.raises(UserError, match=r"holds 'fit', 'val'; .*--config\.data\.splits\.fit=train"):
        read_cohort(folder, "manifest.csv")


def test_absolute_paths_are_read_below_the_folder_that_is_named(folder, tmp_path_factory):
    text = (folder / "manifest.csv").read_text()
    header, *rows = text.splitlines()
    apart = tmp_path_factory.mktemp("apart")
    absolute = [row.replace(row.split(",")[0], f"{folder}/{row.split(',')[0]}", 1) for row in rows]
    (apart / "manifest.csv").write_text("\n".join([header, *absolute]))
    read = read_cohort(apart, "manifest.csv", files=folder)
    np.testing.assert_array_equal(
        read.cohort.images, read_cohort(folder, "manifest.csv").cohort.images
    )
    with pytest.raises(TooManyBadError, match="image path leaves the folder of the manifest; data"):
        read_cohort(apart, "manifest.csv")
    with pytest.raises(TooManyBadError, match="image path leaves the folder"):
        read_cohort(apart, "manifest.csv", files=folder / "deeper")


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ({"0": 3, "1.0": 2}, "labels are numbers: 0 is 'a', 1 is 'b', as data.label_names says"),
        ({"a": 3, "b": 2}, ""),
        ({"7": 1, "": 2, "nan": 1}, ""),
        ({}, ""),
    ],
)
def test_what_numbers_are_taken_for_is_said(labels, told):
    assert describe_labels(Counter(labels), ("a", "b")) == told
