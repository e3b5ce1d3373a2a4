import base64
import csv
import io
import os
import re

import numpy as np
import pytest
from PIL import Image

from gxdistill.errors import UserError
from gxdistill.tasks.cohort import checking
from tests import small_jobs


@pytest.fixture
def folder(tmp_path):
    small_jobs.write_cohort(tmp_path / "files", ("train", "train", "train", "test", "test"))
    return tmp_path / "files"


def _job(folder, workdir, **changes):
    return small_jobs.make(workdir, data__kind="manifest", data__path=str(folder), **changes)


def _quarantined(workdir):
    with (workdir / "quarantine.csv").open(newline="") as file:
        return [row["name"] for row in csv.DictReader(file)]


def test_a_sound_cohort_passes_and_nothing_else_is_written(folder, tmp_path):
    path = checking.check(_job(folder, tmp_path / "work"))
    assert sorted(os.listdir(tmp_path / "work")) == ["check.html", "quarantine.csv"]
    assert _quarantined(tmp_path / "work") == []
    assert "The cohort can be used" in path.read_text("utf-8")


def test_all_that_is_bad_is_listed_and_what_can_be_decoded_is_shown(folder, tmp_path):
    hostile = '<script src="x">&.png'
    Image.new("RGB", (64, 64), (200, 30, 30)).save(folder / hostile)
    text = (folder / "manifest.csv").read_text().replace("\n0.png,", '\n"<script src=""x"">&.png",')
    (folder / "manifest.csv").write_text(text)
    (folder / "2.png").write_text("no image")
    (folder / "3_mask.png").unlink()
    work = tmp_path / "work"
    path = checking.check(_job(folder, work, data__max_bad_share=0.5))
    assert _quarantined(work) == [hostile, "2.png", "3.png"]
    page = path.read_text("utf-8")
    assert "<script" not in page
    assert "&lt;script src=&quot;x&quot;&gt;&amp;.png" in page
    pictures = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB"))
        for text in re.findall(r"base64,([\w+/=]+)", page)
    ]
    assert len(pictures) == 2
    assert pictures[0][32, 32].tolist() == [200, 30, 30]
    np.testing.assert_array_equal(pictures[1][..., 0], np.asarray(Image.open(folder / "3.png")))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"data__max_bad_share": 0.0}, r"1 of 10 .*All are named in .*quarantine\.csv"),
        ({"data__max_bad_share": 0.5, "patch__size": 99}, "--config.patch.size=9"),
        ({"data__max_bad_share": 0.5, "data__label_names": ("a", "b", "c")}, "class 'c'"),
        ({"data__max_bad_share": 0.5, "data__splits": {"test": "train"}}, "for the test split"),
        ({"data__max_bad_share": 0.5, "patch__size": 60}, "No train patch is"),
    ],
)
def test_what_cannot_be_used_is_refused_after_the_list_is_written(
    folder, tmp_path, changes, reason
):
    (folder / "2.png").write_text("no image")
    work = tmp_path / "work"
    with pytest.raises(UserError, match=reason):
        checking.check(_job(folder, work, **changes))
    assert _quarantined(work) == ["2.png"]
    assert (work / "check.html").exists()


def test_what_is_not_of_files_is_refused(tmp_path):
    with pytest.raises(UserError, match="'phantom': there are no files to check"):
        checking.check(small_jobs.make(tmp_path))
