import numpy as np
import pytest
from PIL import Image
from scipy import stats

from gxdistill.data import intensities
from gxdistill.data.files.grey import BadEntryError
from gxdistill.data.files.manifest import Entry
from gxdistill.data.files.reading import Recipe, read_entry


@pytest.fixture
def radiograph():
    rng = np.random.default_rng(0)
    image = rng.normal(110, 25, (64, 48)).clip(10, 240).astype(np.uint8)
    mask = np.zeros(image.shape, bool)
    mask[16:40, 8:30] = True
    image[mask] = rng.gamma(4, 12, mask.sum()).clip(10, 240).astype(np.uint8)
    return image, mask


@pytest.mark.parametrize("way", ["image", "organ"])
def test_a_straight_line_gives_the_region_its_mean_and_deviation(radiograph, way):
    image, mask = radiograph
    region = mask if way == "organ" else np.ones_like(mask)
    levels = image[region].astype(float)
    expected = 128 + 42 * (image - levels.mean()) / levels.std()
    result = intensities.normalise(image, mask, way)
    np.testing.assert_array_equal(result, np.clip(np.rint(expected), 0, 255))


@pytest.mark.parametrize("way", ["image_histogram", "organ_histogram"])
def test_ranks_become_normal_scores(radiograph, way):
    image, mask = radiograph
    region = mask if way.startswith("organ") else np.ones_like(mask)
    levels = image[region].astype(float)
    scores = stats.norm.ppf((stats.rankdata(levels) - 0.5) / len(levels)).clip(-3, 3)
    result = intensities.normalise(image, mask, way)[region]
    np.testing.assert_array_equal(result, np.rint(128 + 42 * scores))


@pytest.mark.parametrize("way", ["image_histogram", "organ_histogram"])
def test_a_rising_curve_of_the_machine_is_undone(radiograph, way):
    image, mask = radiograph
    darker = image // 4 + 20  # Levels that are apart stay so: none is merged with another.
    image = darker // 2 * 2
    curved = np.rint(8 + 0.012 * image.astype(float) ** 2).astype(np.uint8)
    assert len(np.unique(curved)) == len(np.unique(image))
    ours, theirs = (intensities.normalise(each, mask, way) for each in (image, curved))
    np.testing.assert_array_equal(ours, theirs)


def test_background_at_the_border_decides_nothing(radiograph):
    image, mask = radiograph
    for level in (0, 255):
        banded = np.pad(image, ((0, 30), (0, 0)), constant_values=level)
        shown = np.pad(mask, ((0, 30), (0, 0)))
        for way in ("image", "image_histogram", "organ", "organ_histogram"):
            alone = intensities.normalise(image, mask, way)
            np.testing.assert_array_equal(intensities.normalise(banded, shown, way)[:64], alone)


def test_dark_areas_within_the_image_are_no_background():
    image = np.full((20, 20), 100, np.uint8)
    image[8:12, 8:12] = 0
    image[:3] = 0
    found = intensities.background(image)
    assert found[:3].all()
    assert not found[3:].any()


def test_the_cohorts_way_leaves_an_image_as_it_is(radiograph):
    image, mask = radiograph
    np.testing.assert_array_equal(intensities.normalise(image, mask, "cohort"), image)


def test_what_cannot_be_done_is_refused(radiograph):
    image, mask = radiograph
    with pytest.raises(ValueError, match="way"):
        intensities.normalise(image, mask, "site")
    for absent in (None, np.zeros_like(mask)):
        with pytest.raises(ValueError, match="No mask shows the organ"):
            intensities.normalise(image, absent, "organ")


@pytest.mark.parametrize("level", [0, 90, 255])
@pytest.mark.parametrize("way", intensities.WAYS)
def test_an_image_of_one_level_is_no_fault(level, way):
    image = np.full((8, 8), level, np.uint8)
    result = intensities.normalise(image, np.ones((8, 8), bool), way)
    assert (result == result[0, 0]).all()


def test_files_are_read_normalised(radiograph, tmp_path):
    image, mask = radiograph
    Image.fromarray(image).save(tmp_path / "a.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    recipe = Recipe((64, 48), downscale=2, text="keep", normalise="organ_histogram")
    entry = Entry.of_image(tmp_path / "a.png", tmp_path / "mask.png")
    plain = read_entry(entry, Recipe((64, 48), downscale=2, text="keep"))
    expected = intensities.normalise(plain.image, plain.mask, "organ_histogram")
    np.testing.assert_array_equal(read_entry(entry, recipe).image, expected)
    with pytest.raises(BadEntryError, match="mask missing"):
        read_entry(Entry.of_image(tmp_path / "a.png"), recipe)
