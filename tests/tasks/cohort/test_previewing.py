import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from gxdistill.errors import UserError
from gxdistill.tasks.cohort import previewing
from tests import small_jobs


def _shown(path):
    """The captions of a page and its pictures, `[H, W, 3]`."""
    page = path.read_text("utf-8")
    pictures = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))
        for text in re.findall(r"base64,([\w+/=]+)", page)
    ]
    return re.findall(r"<figcaption>(.*?)</figcaption>", page), pictures, page


@pytest.fixture
def folder(tmp_path):
    small_jobs.write_cohort(tmp_path / "files")  # The organ is the right half of each.
    return tmp_path / "files"


def _write(folder, workdir, **changes):
    job = small_jobs.make(workdir, data__kind="manifest", data__path=str(folder), **changes)
    return _shown(previewing.write(job))


def test_patches_are_counted_and_marked_as_a_loop_finds_them(folder, tmp_path):
    captions, pictures, page = _write(folder, tmp_path, patch__stride=8, patch__size=16)
    assert len(captions) == len(pictures) == 6
    mask = np.tile(np.arange(64) >= 32, (64, 1))
    corners = [(row, col) for row in range(0, 49, 8) for col in range(0, 49, 8)]
    shares = {at: mask[at[0] : at[0] + 16, at[1] : at[1] + 16].mean() for at in corners}
    inside = [at for at in corners if shares[at] >= 0.6]
    outside = [at for at in corners if shares[at] <= 0.01]
    dropped = len(corners) - len(inside) - len(outside)
    colours = {"non-gastritis": (0, 158, 115), "gastritis": (213, 94, 0)}
    for caption, picture in zip(captions, pictures, strict=True):
        label = re.search(r": (\S+);", caption)[1]
        assert f" {len(outside)} irrelevant, " in caption
        assert f" {len(inside)} {label}" in caption
        assert f"{dropped} dropped; 8 bits, as stored." in caption
        for places, colour in ((outside, (86, 180, 233)), (inside, colours[label])):
            scale = picture.shape[0] / 64
            for row, col in places:
                centre = picture[int(scale * (row + 8)), int(scale * (col + 8))]
                assert tuple(centre.tolist()) == colour
    assert "at most 0.01 of it is organ" in page
    assert {re.search(r": (\S+);", caption)[1] for caption in captions} == set(colours)


def test_what_the_area_rule_leaves_empty_is_shown_all_the_same(folder, tmp_path):
    captions, _, _ = _write(folder, tmp_path, patch__size=60, patch__stride=60)
    assert all("0 irrelevant" in caption and "1 dropped" in caption for caption in captions)


def test_an_image_that_cannot_be_read_is_named(folder, tmp_path):
    for path in folder.glob("?.png"):
        path.write_bytes(path.read_bytes()[:-500])
    captions, _, page = _write(folder, tmp_path)
    assert len(captions) == 6
    assert all("damaged or truncated" in caption for caption in captions)
    assert "6 entries cannot be used" in page
    listed = (tmp_path / "quarantine.csv").read_text().splitlines()
    assert sorted(line.partition(",")[0] for line in listed[1:]) == sorted(
        re.findall(r"<strong>(.*?)</strong>", "".join(captions))
    )


def test_a_patch_that_does_not_fit_is_the_users_to_mend(folder, tmp_path):
    with pytest.raises(
        UserError, match=r"patch.size is 99, which .* 64x64 px. Lower it, as --config.patch.size=9,"
    ):
        _write(folder, tmp_path, patch__size=99)


def test_a_built_in_cohort_is_shown(tmp_path):
    captions, pictures, _ = _shown(previewing.write(small_jobs.make(tmp_path)))
    assert len(captions) == len(pictures) == 6
