import csv
import json
import os

import numpy as np
import pytest
from PIL import Image

from gxdistill.data.files.reading import Recipe
from gxdistill.data.quarantine import TooManyBadError, write_quarantine
from gxdistill.data.source import Quarantined, read_cohort, summary
from gxdistill.errors import UserError

FIELDS = ("image", "mask", "label", "patient", "site", "split")


class Folder:
    """A folder of 40 images of 12 x 16 pixels of 20 patients, sound until a test breaks it."""

    def __init__(self, root, write_dicom):
        self.root, self.write_dicom = root, write_dicom
        self.columns = ("image", "mask", "label", "patient", "site")
        rng = np.random.default_rng(0)
        self.rows = [
            {
                "image": f"{i:02}.png",
                "mask": f"{i:02}_mask.png",
                "label": i // 2 % 2,
                "patient": f"p{i // 2:02}",
                "site": "ab"[i // 2 % 4 // 2],
                "split": "test" if i >= 30 else "train",
            }
            for i in range(40)
        ]
        for row in self.rows:
            self.save(row["image"], rng.integers(0, 256, (12, 16), dtype=np.uint8))
            self.save(row["mask"], rng.random((12, 16)) > 0.4)

    def save(self, name, array, **options):
        Image.fromarray(array).save(self.root / name, **options)

    def pixels(self, name):
        return np.asarray(Image.open(self.root / name))

    def cut(self, name, share=0.5):
        content = (self.root / name).read_bytes()
        (self.root / name).write_bytes(content[: int(share * len(content))])

    def read(self, **options):
        with (self.root / "manifest.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(self.rows)
        return read_cohort(self.root, "manifest.csv", **options)


@pytest.fixture
def folder(tmp_path, write_dicom):
    return Folder(tmp_path, write_dicom)


def test_a_sound_folder_is_read_whole(folder):
    source = folder.read()
    cohort = source.cohort
    assert source.quarantine == ()
    assert cohort.class_names == ("irrelevant", "non-gastritis", "gastritis")
    assert cohort.names.tolist() == [row["image"] for row in folder.rows]
    assert cohort.labels.tolist() == [row["label"] for row in folder.rows]
    assert cohort.labels.dtype == np.int32
    assert cohort.images.shape == (40, 12, 16, 1)
    for i, row in enumerate(folder.rows):
        np.testing.assert_array_equal(cohort.images[i, ..., 0], folder.pixels(row["image"]))
        np.testing.assert_array_equal(cohort.masks[i], folder.pixels(row["mask"]))
    for patient in set(cohort.patients):
        assert len(set(cohort.splits[cohort.patients == patient])) == 1
    # 4 strata of label and site, 5 patients of 2 images each; 0.25 of 5 is nearest to 1.
    assert (cohort.splits == "test").sum() == 8


def test_without_masks_the_classes_are_the_labels(folder):
    folder.columns = ("image", "label", "patient")
    cohort = folder.read(label_names=("healthy", "ill")).cohort
    assert cohort.masks is None
    assert cohort.class_names == ("healthy", "ill")
    assert set(cohort.sites) == {"unknown"}


def test_masks_that_are_missing_may_be_made(folder):
    for row in folder.rows[:20]:
        row["mask"] = ""
    source = folder.read(recipe=Recipe(segment=lambda pixels: pixels > 100))
    assert source.quarantine == ()
    assert source.reading["segmented"] == 20
    for i, row in enumerate(folder.rows):
        expected = folder.pixels(row["mask"]) if row["mask"] else folder.pixels(row["image"]) > 100
        np.testing.assert_array_equal(source.cohort.masks[i], expected)


def test_given_splits_are_kept(folder):
    folder.columns = FIELDS
    cohort = folder.read(test_share=0.9).cohort
    assert cohort.splits.tolist() == [row["split"] for row in folder.rows]


def test_downscale_shrinks_images_and_masks(folder):
    full = folder.read().cohort
    small = folder.read(recipe=Recipe(downscale=4)).cohort
    blocks = full.images[..., 0].reshape(40, 3, 4, 4, 4)
    np.testing.assert_allclose(small.images[..., 0], blocks.mean((2, 4)), atol=0.5)
    organ = full.masks.reshape(40, 3, 4, 4, 4).mean((2, 4)) >= 0.5
    np.testing.assert_array_equal(small.masks, organ)


def test_kinds_of_files_may_be_mixed(folder):
    grey = folder.pixels("03.png")
    folder.save("03.tif", grey)
    folder.write_dicom(folder.root / "05.dcm", folder.pixels("05.png"))
    folder.rows[3]["image"], folder.rows[5]["image"] = "03.tif", "05.dcm"
    mixed = folder.read().cohort
    np.testing.assert_array_equal(mixed.images[3, ..., 0], grey)
    np.testing.assert_array_equal(mixed.images[5, ..., 0], folder.pixels("05.png"))


def test_progress_counts_every_image_once(folder):
    seen = []
    folder.read(progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i + 1, 40) for i in range(40)]


def _rename(field, value):
    return lambda folder: folder.rows[7].update({field: value})


def _save(name, array, **options):
    return lambda folder: folder.save(name, array, **options)


def _listed_twice(folder):
    folder.rows[8] = folder.rows[7] | {"image": "./07.png"}


def _copied(folder):
    folder.save("07.png", folder.pixels("02.png"))
    folder.rows[7]["label"] = folder.rows[2]["label"]


def _tiff(values):
    def plant(folder):
        folder.save("07.tif", values)
        folder.rows[7]["image"] = "07.tif"

    return plant


def _dicom(pixels, cut=False, **elements):
    def plant(folder):
        folder.write_dicom(folder.root / "07.dcm", pixels, **elements)
        if cut:
            folder.cut("07.dcm", 0.9)
        folder.rows[7]["image"] = "07.dcm"

    return plant


_NOISE = np.random.default_rng(1).integers(0, 256, (12, 16), dtype=np.uint8)

BAD = {
    "image file missing": (lambda f: os.remove(f.root / "07.png"), "file missing"),
    "image file empty": (lambda f: (f.root / "07.png").write_bytes(b""), "file empty"),
    "image truncated": (lambda f: f.cut("07.png"), "damaged or truncated"),
    "image is text": (lambda f: (f.root / "07.png").write_text("x"), "not a readable PNG"),
    "image of another size": (
        _save("07.png", np.eye(13, 16, dtype=np.uint8)),
        "image is 13x16 px, not 12x16 px",
    ),
    "image constant": (_save("07.png", np.full((12, 16), 9, np.uint8)), "constant image"),
    "image coloured": (
        _save("07.png", np.dstack([_NOISE, _NOISE, _NOISE.T.reshape(12, 16)])),
        "colour image",
    ),
    "image with NaN": (
        _tiff(np.where(_NOISE > 9, _NOISE, np.nan).astype(np.float32)),
        "not finite",
    ),
    "image outside": (_rename("image", "../07.png"), "image path leaves the folder"),
    "image listed twice": (_listed_twice, "same file as line 9"),
    "image twice in pixels": (_copied, "same pixels as line 4"),
    "dicom truncated": (_dicom(_NOISE, cut=True), "DICOM pixels truncated"),
    "dicom of many frames": (_dicom(np.stack([_NOISE, _NOISE])), "multi-frame DICOM"),
    "dicom in colour": (_dicom(_NOISE, PhotometricInterpretation="RGB"), "colour DICOM"),
    "mask not given": (_rename("mask", ""), "mask missing"),
    "mask file missing": (lambda f: os.remove(f.root / "07_mask.png"), "mask: file missing"),
    "mask truncated": (lambda f: f.cut("07_mask.png"), "mask: damaged or truncated"),
    "mask of another size": (
        _save("07_mask.png", np.ones((16, 12), bool)),
        "mask is 16x12 px, its image 12x16 px",
    ),
    "mask empty": (_save("07_mask.png", np.zeros((12, 16), bool)), "mask empty"),
    "mask outside": (_rename("mask", "/07_mask.png"), "mask path leaves the folder"),
    "label unknown": (_rename("label", 2), "label '2' is none of 0..1"),
    "label not a number": (_rename("label", "nan"), "label 'nan' is none of"),
    "label empty": (_rename("label", ""), "label empty"),
    "patient empty": (_rename("patient", " "), "patient empty"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_entry_is_left_out_by_name_and_reason_and_the_job_goes_on(folder, kind):
    sound = _by_name(folder.read().cohort)
    plant, reason = BAD[kind]
    plant(folder)
    source = folder.read()
    [left_out] = source.quarantine
    assert left_out.name in {row["image"] for row in folder.rows[7:9]}
    assert reason in left_out.reason
    assert "\n" not in left_out.reason
    assert len(source.cohort.names) == 39
    for name, (image, mask) in _by_name(source.cohort).items():
        np.testing.assert_array_equal(image, sound[name][0], err_msg=name)
        np.testing.assert_array_equal(mask, sound[name][1], err_msg=name)


def _by_name(cohort):
    return dict(zip(cohort.names, zip(cohort.images, cohort.masks, strict=True), strict=True))


def _spoil(n, field="label", value=""):
    return lambda folder: [row.update({field: value}) for row in folder.rows[:n]]


def _split_a_patient(folder):
    folder.columns = FIELDS
    folder.rows[0]["split"] = "test"


def _name_a_third_split(folder):
    folder.columns = FIELDS
    folder.rows[0]["split"] = "val"


STOPS = {
    "too much is bad": (_spoil(3), {}, "3 of 40 entries of .* are bad, 5.0% are allowed: '00.png'"),
    "nothing is left": (_spoil(40), {"max_bad_share": 1.0}, "40 of 40 entries of .* are bad"),
    "another size": (
        lambda _: None,
        {"recipe": Recipe((8, 8))},
        "image is 12x16 px, not 8x8",
    ),
    "an empty class": (_spoil(40, value=0), {}, "No training image of class 'gastritis'"),
    "a patient in both": (_split_a_patient, {}, "1 patients are in both splits: 'p00'"),
    "a third split": (_name_a_third_split, {}, "holds 'val'; it may hold only 'train' and 'test'"),
    "a factor that does not divide": (
        lambda _: None,
        {"recipe": Recipe(downscale=3)},
        "`downscale` 3 does not divide images of 12x16 px. These do: 1, 2, 4.",
    ),
    "a column of no name": (lambda _: None, {"columns": {"site": "sit"}}, "Did you mean 'site'"),
    "no test patient": (lambda _: None, {"test_share": 0.01}, "Raise `test_share`"),
}


@pytest.mark.parametrize("kind", STOPS)
def test_what_cannot_be_used_stops_the_job_in_one_line(folder, kind):
    plant, options, message = STOPS[kind]
    plant(folder)
    with pytest.raises(UserError, match=message) as caught:
        folder.read(**options)
    assert "\n" not in str(caught.value)


def test_a_stopped_job_hands_over_the_whole_list(folder):
    _spoil(5)(folder)
    with pytest.raises(
        TooManyBadError, match=r"'02.png': label empty; and 2 more\. Mend"
    ) as caught:
        folder.read()
    expected = [Quarantined(f"{i:02}.png", "label empty") for i in range(5)]
    assert list(caught.value.quarantine) == expected


def test_the_share_that_may_be_bad_is_exact(folder):
    _spoil(2)(folder)
    assert len(folder.read(max_bad_share=0.05).quarantine) == 2
    with pytest.raises(TooManyBadError):
        folder.read(max_bad_share=0.049)


def test_reading_twice_gives_the_same(folder):
    first, second = folder.read(limit=20).cohort, folder.read(limit=20).cohort
    assert len(first.names) == 20
    for field in ("images", "masks", "labels", "patients", "sites", "splits", "names"):
        np.testing.assert_array_equal(getattr(first, field), getattr(second, field))


def test_the_summary_counts_and_is_json(folder):
    _spoil(1)(folder)
    folder.columns = FIELDS
    told = json.loads(json.dumps(summary(folder.read(recipe=Recipe(downscale=2)))))
    assert (told["images"], told["patients"]) == (39, 20)
    assert told["sites"] == {"a": 19, "b": 20}
    assert told["splits"]["train"] == {
        "images": 29,
        "patients": 15,
        "labels": {"non-gastritis": 15, "gastritis": 14},
    }
    assert (told["image_size"], told["read_size"], told["downscale"]) == ([6, 8], [12, 16], 2)
    assert told["quarantine"] == {
        "count": 1,
        "reasons": {"label empty": 1},
        "entries": [{"name": "00.png", "reason": "label empty"}],
    }


def test_the_quarantine_is_written_as_csv(tmp_path):
    entries = [Quarantined("a, b.png", "file missing"), Quarantined('"ü".png', "label empty")]
    write_quarantine(tmp_path / "quarantine.csv", entries)
    with (tmp_path / "quarantine.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [["name", "reason"], *map(list, entries)]
    assert os.listdir(tmp_path) == ["quarantine.csv"]


def test_a_quarantine_that_cannot_be_written_leaves_the_old_one(tmp_path):
    (tmp_path / "quarantine.csv").mkdir()  # In the way of the rename.
    with pytest.raises(UserError, match=r"quarantine\.csv could not be written: .* another place"):
        write_quarantine(tmp_path / "quarantine.csv", [])
    assert os.listdir(tmp_path) == ["quarantine.csv"]


def test_the_public_radiographs_are_read_by_mapping_their_columns(data_root):
    source = read_cohort(
        data_root / "cxr_tb_lung",
        "labels.csv",
        columns={"image": "images/{id}.jpg", "mask": "masks/{id}.png"},
        label_names=("normal", "tuberculosis"),
        recipe=Recipe(downscale=4),
    )
    cohort = source.cohort
    assert source.quarantine == ()
    assert cohort.images.shape == (704, 128, 128, 1)
    told = summary(source)
    assert told["sites"] == {"Montgomery": 138, "Shenzhen": 566}
    assert [told["splits"][split]["images"] for split in ("train", "test")] == [528, 176]
    labels = [told["splits"][split]["labels"] for split in ("train", "test")]
    assert {name: sum(part[name] for part in labels) for name in labels[0]} == {
        "normal": 359,
        "tuberculosis": 345,
    }
    # The published share of lung in each image, counted at full size.
    with (data_root / "cxr_tb_lung/labels.csv").open() as file:
        shares = [float(row["lung_fraction"]) for row in csv.DictReader(file)]
    np.testing.assert_allclose(cohort.masks.mean((1, 2)), shares, atol=0.005)
