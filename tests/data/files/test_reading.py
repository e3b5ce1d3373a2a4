import csv
import dataclasses

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from gxdistill import patching
from gxdistill.data import source
from gxdistill.data.files import grey, images, reading
from gxdistill.data.files.grey import BadEntryError
from gxdistill.data.files.manifest import Entry
from gxdistill.data.files.reading import Facts, Recipe
from gxdistill.errors import UserError

NOISE = np.random.default_rng(0).integers(0, 256, (40, 60), dtype=np.uint8)


def _entry(path, mask=None, spacing=None):
    return Entry.of_image(path)._replace(mask=mask, spacing=spacing)


def _saved(path, pixels):
    Image.fromarray(pixels).save(path)
    return path


def test_a_smaller_image_is_padded_with_black_and_its_mask_with_no_organ(tmp_path):
    image, mask = _saved(tmp_path / "a.png", NOISE), _saved(tmp_path / "m.png", NOISE > 99)
    read = reading.read_entry(_entry(image, mask), Recipe((50, 64), fit="pad"))
    np.testing.assert_array_equal(read.image, np.pad(NOISE, ((5, 5), (2, 2))))
    np.testing.assert_array_equal(read.mask, np.pad(NOISE > 99, ((5, 5), (2, 2))))
    for size, fit in (((50, 64), "same"), ((40, 50), "pad"), ((30, 64), "pad")):
        with pytest.raises(BadEntryError, match=f"image is 40x60 px, not {size[0]}x"):
            reading.read_entry(_entry(image, mask), Recipe(size, fit=fit))


@pytest.mark.parametrize(("spacing", "size"), [(0.2, (20, 60)), (0.1, (40, 120)), (0.4, (10, 30))])
def test_an_image_is_resampled_along_each_axis_by_its_own_spacing(
    tmp_path, write_dicom, spacing, size
):
    """A disc of 3 mm stays one, whatever the spacings."""
    rows, columns = np.indices((40, 60))
    disc = np.hypot((rows - 19.5) * 0.1, (columns - 29.5) * 0.2) <= 1.5
    write_dicom(tmp_path / "a.dcm", disc * np.uint8(200) + np.uint8(20), PixelSpacing=[0.1, 0.2])
    entry = _entry(tmp_path / "a.dcm", _saved(tmp_path / "m.png", disc))
    read = reading.read_entry(entry, Recipe(size, spacing=spacing))
    assert reading.read_size(entry, spacing) == size == read.image.shape
    assert read.mask.sum() * spacing**2 == pytest.approx(np.pi * 1.5**2, rel=0.06)
    for axis in (0, 1):
        assert read.mask.any(axis=axis).sum() * spacing == pytest.approx(
            3, abs=1.01 * max(spacing, 0.2)
        )
    assert (read.image[read.mask] > 100).mean() > 0.85
    assert read.image.mean() == pytest.approx(20 + 200 * disc.mean(), rel=0.1)


def test_the_manifests_spacing_goes_before_the_files(tmp_path, write_dicom):
    write_dicom(tmp_path / "a.dcm", NOISE, ImagerPixelSpacing=[0.2, 0.2])
    assert reading.read_size(_entry(tmp_path / "a.dcm"), 0.4) == (20, 30)
    assert reading.read_size(_entry(tmp_path / "a.dcm", spacing=0.8), 0.4) == (80, 120)
    plain = _saved(tmp_path / "a.png", NOISE)
    assert reading.read_size(_entry(plain, spacing=0.8), 0.4) == (80, 120)
    with pytest.raises(BadEntryError, match="pixel spacing not known: no header"):
        reading.read_size(_entry(plain), 0.4)
    with pytest.raises(BadEntryError, match="header claims"):
        reading.read_size(_entry(plain, spacing=1e5), 0.4)


@pytest.mark.parametrize("spacing", [[0, 0], [-1, 1], ["1e9", 1], None, [1, 1, 1]])
def test_a_spacing_that_makes_no_sense_is_none(tmp_path, write_dicom, spacing):
    write_dicom(tmp_path / "a.dcm", NOISE, PixelSpacing=spacing)
    assert images.read_header(tmp_path / "a.dcm").spacing is None
    assert images.read_image(tmp_path / "a.dcm").spacing is None


def test_a_segmenter_makes_the_masks_that_are_missing(tmp_path):
    image, mask = _saved(tmp_path / "a.png", NOISE), _saved(tmp_path / "m.png", NOISE > 99)
    recipe = Recipe((40, 60), segment=lambda pixels: pixels > 200)
    made = reading.read_entry(_entry(image), recipe)
    np.testing.assert_array_equal(made.mask, NOISE > 200)
    assert made.facts.segmented
    given = reading.read_entry(_entry(image, mask), recipe)
    np.testing.assert_array_equal(given.mask, NOISE > 99)
    assert not given.facts.segmented
    with pytest.raises(BadEntryError, match="mask empty"):
        reading.read_entry(_entry(image), dataclasses.replace(recipe, segment=lambda p: p < 0))
    with pytest.raises(ValueError, match="must return bool of the same shape"):
        reading.read_entry(_entry(image), dataclasses.replace(recipe, segment=lambda p: p))


@pytest.fixture
def lettered(tmp_path):
    pixels = Image.new("L", (200, 160), 60)
    ImageDraw.Draw(pixels).text((8, 8), "DOE JANE 1967", 250, ImageFont.load_default(16))
    ImageDraw.Draw(pixels).ellipse((60, 60, 140, 120), 120)
    pixels.save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_burned_in_text_is_masked_refused_or_kept(lettered):
    entry = _entry(lettered)
    kept = reading.read_entry(entry, Recipe((160, 200), text="keep"))
    masked = reading.read_entry(entry, Recipe((160, 200)))
    assert kept.facts.texts == masked.facts.texts > 0
    assert kept.image.max() == 250
    assert masked.image.max() == 120
    np.testing.assert_array_equal(masked.image[50:], kept.image[50:])
    with pytest.raises(BadEntryError, match="burned-in text"):
        reading.read_entry(entry, Recipe((160, 200), text="refuse"))


def test_text_that_only_a_header_knows_of_is_not_let_through(tmp_path, write_dicom):
    write_dicom(tmp_path / "a.dcm", NOISE, BurnedInAnnotation="YES")
    entry = _entry(tmp_path / "a.dcm")
    for text in ("mask", "refuse"):
        with pytest.raises(BadEntryError, match="burned-in text"):
            reading.read_entry(entry, Recipe((40, 60), text=text))
    np.testing.assert_array_equal(
        reading.read_entry(entry, Recipe((40, 60), text="keep")).image, NOISE
    )


def test_how_images_were_read_is_counted():
    known = [Facts(8, "as stored", 0, False)] * 3 + [Facts(12, "window", 2, True)]
    assert reading.account(Recipe(spacing=0.5), known) == {
        "spacing": 0.5,
        "fit": "same",
        "window": "file",
        "text": "mask",
        "bits": {"8": 3, "12": 1},
        "windows": {"as stored": 3, "window": 1},
        "with_text": 1,
        "segmented": 1,
    }


def test_the_files_window_may_be_passed_over(tmp_path, write_dicom):
    stored = np.random.default_rng(0).integers(0, 4096, (40, 60)).astype(np.uint16)
    write_dicom(
        tmp_path / "a.dcm", stored, BitsStored=12, HighBit=11, WindowCenter=9, WindowWidth=9
    )
    read = images.read_image(tmp_path / "a.dcm", "percentiles")
    np.testing.assert_array_equal(read.pixels, grey.to_uint8(stored))
    assert (read.bits, read.window) == (12, "percentiles")
    assert images.read_image(tmp_path / "a.dcm").window == "window"


@pytest.mark.parametrize("setting", [{"fit": "stretch"}, {"window": "x"}, {"text": ""}])
def test_an_unknown_setting_is_refused(setting):
    with pytest.raises(ValueError, match="must be one of"):
        Recipe(**setting)


def test_a_cohort_of_mixed_sizes_is_padded_to_the_largest(tmp_path):
    shapes = [(40, 60), (44, 50), (40, 60), (30, 30)]
    rng = np.random.default_rng(0)
    lines = ["image,label,patient,split"]
    for i, shape in enumerate(shapes):
        _saved(tmp_path / f"{i}.png", rng.integers(0, 256, shape, dtype=np.uint8))
        lines.append(f"{i}.png,{i % 2},p{i},{'train' if i < 2 else 'test'}")
    (tmp_path / "manifest.csv").write_text("\n".join(lines))
    read = source.read_cohort(
        tmp_path, "manifest.csv", recipe=Recipe(fit="pad", downscale=8), max_bad_share=0
    )
    assert read.recipe.size == (48, 64)
    assert read.cohort.images.shape == (4, 6, 8, 1)
    with pytest.raises(UserError, match=r"2 of 4 entries .* not 40x60 px"):
        source.read_cohort(tmp_path, "manifest.csv", max_bad_share=0)


def test_real_lesions_give_the_published_counts_of_patches(data_root):
    """22 radiographs of up to 2048 pixels, patches of 299 at stride 299, masks of radiologists."""
    folder = data_root / "cxr_hires_lesion"
    with (folder / "labels.csv").open() as file:
        names = [row["id"] for row in csv.DictReader(file)]
    counted = dict.fromkeys(("outside", "negative", "positive", "ambiguous", "border"), 0)
    for name in names:
        path = folder / f"masks/{name}.png"
        organ = images.read_mask(path, [1, 2, 3, 4, 5, 6, 7])
        lesion = images.read_mask(path, [2, 3, 4, 5, 6, 7])
        corners = patching.patch_corners(organ.shape, 299, 299)
        lung, ill = (patching.organ_shares(mask, corners, 299) for mask in (organ, lesion))
        inside = lung >= 0.85
        counted["outside"] += int((lung < 0.01).sum())
        counted["negative"] += int((inside & (ill < 0.01)).sum())
        counted["positive"] += int((inside & (ill >= 0.3)).sum())
        counted["ambiguous"] += int((inside & (ill >= 0.01) & (ill < 0.3)).sum())
        counted["border"] += int((~inside & (lung >= 0.01)).sum())
    assert counted == {
        "outside": 132,
        "negative": 43,
        "positive": 47,
        "ambiguous": 18,
        "border": 350,
    }
