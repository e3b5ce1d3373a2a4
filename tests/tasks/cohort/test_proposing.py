import csv

import pytest
from PIL import Image

from gxdistill.cli import config
from gxdistill.data import source
from gxdistill.errors import UserError
from gxdistill.jobs import kinds
from gxdistill.tasks.cohort import proposing
from gxdistill.tasks.distillation import settings
from tests import small_jobs


def _proposed(folder, target):
    told = "\n".join(proposing.write(folder, target))
    read = config.read(str(target), [])
    settings.check(read)
    return read, told


def _read(proposed):
    return kinds.load(proposed, print)


def test_a_folder_of_the_readmes_form_is_read_by_what_is_proposed(tmp_path):
    small_jobs.write_cohort(tmp_path / "files", side=256)
    (tmp_path / "files/.Trash").mkdir()
    proposed, told = _proposed(tmp_path / "files", tmp_path / "own.py")
    assert (proposed.data.downscale, proposed.patch.size, proposed.patch.stride) == (2, 16, 8)
    assert "name the labels" in told
    assert "1 hidden or system entries" in told
    assert f"gxdistill preview --config={tmp_path / 'own.py'}" in told
    read = _read(proposed)
    assert read.quarantine == ()
    assert read.cohort.images.shape == (8, 128, 128, 1)
    settings.check(config.read(f"{tmp_path / 'own.py'}:smoke", []))


def test_columns_templates_labels_and_splits_are_guessed(tmp_path):
    small_jobs.write_cohort(tmp_path / "x", side=64)
    for folder in ("images", "masks"):
        (tmp_path / "set" / folder).mkdir(parents=True)
    rows = []
    for i in range(8):
        Image.open(tmp_path / f"x/{i}.png").save(tmp_path / f"set/images/case_{i}.png")
        Image.open(tmp_path / f"x/{i}_mask.png").save(tmp_path / f"set/masks/case_{i}.png")
        split = ("training", "training", "training", "training", "val", "val", "test", "test")[i]
        name = ("ill", 'Normal \'\n"""')[i % 2]
        rows.append({"id": f"case_{i}", "Subject ID": f"s{i}", "diagnosis": name, "fold": split})
    with (tmp_path / "set/table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    proposed, _ = _proposed(tmp_path / "set", tmp_path / "own.py")
    assert proposed.data.columns.to_dict() == {
        "image": "images/{id}.png",
        "mask": "masks/{id}.png",
        "label": "diagnosis",
        "patient": "Subject ID",
        "split": "fold",
    }
    assert proposed.data.label_names == ('Normal \'\n"""', "ill")  # The negative one first.
    assert proposed.data.splits.to_dict() == {"training": "train", "val": "train"}
    read = _read(proposed)
    assert read.quarantine == ()
    assert source.summary(read)["splits"]["test"]["images"] == 2


@pytest.mark.parametrize(
    ("height", "width", "cut"),
    [
        (2048, 2048, (16, 16, 8)),
        (256, 256, (2, 16, 8)),
        (512, 640, (4, 16, 8)),
        (100, 90, (1, 8, 4)),
        (251, 313, (1, 32, 16)),
    ],
)
def test_images_are_shrunk_by_what_divides_them_and_cut_as_the_papers_do(height, width, cut):
    downscale, size, stride = proposing.propose_cut(height, width)
    assert (downscale, size, stride) == cut
    assert height % downscale == width % downscale == size % 8 == 0


def test_what_tells_too_little_is_refused_and_nothing_is_overwritten(tmp_path):
    small_jobs.write_cohort(tmp_path / "files")
    (tmp_path / "own.py").write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        proposing.write(tmp_path / "files", tmp_path / "own.py")
    assert (tmp_path / "own.py").read_text() == "mine"
    manifest = tmp_path / "files/manifest.csv"
    manifest.write_text(manifest.read_text().replace("label", "x"))
    with pytest.raises(UserError, match="no column that looks like the label"):
        proposing.write(tmp_path / "files", tmp_path / "new.py")
    manifest.unlink()
    with pytest.raises(UserError, match=r"holds 16 images and no CSV .* Write a manifest\.csv"):
        proposing.write(tmp_path / "files", tmp_path / "new.py")
    with pytest.raises(UserError, match="is no folder"):
        proposing.write(tmp_path / "nowhere", tmp_path / "new.py")
