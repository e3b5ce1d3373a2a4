import csv

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from gxdistill.data import phantom
from gxdistill.data.files import burned_in, images


@pytest.fixture(scope="module")
def radiograph():
    return phantom.phantom_cohort(0, patients=4, size=512).images[0, ..., 0]


def _written(pixels, text, at, *, fill, size=18, turned=False):
    """Draws text in a box of its own, at `at` = (row, column); returns the pixels and the box."""
    font = ImageFont.load_default(size)
    left, upper, right, lower = map(int, font.getbbox(text))
    line = Image.new("L", (right - left, lower - upper))
    ImageDraw.Draw(line).text((-left, -upper), text, fill=255, font=font)
    line = np.asarray(line.rotate(90, expand=True) if turned else line) > 127
    place = tuple(slice(a, a + n) for a, n in zip(at, line.shape, strict=True))
    out = pixels.copy()
    out[place][line] = fill
    return out, place


@pytest.mark.parametrize("scale", [1, 4])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("fill", "ground"), [(255, 60), (0, 200)])
def test_a_name_in_the_border_is_found_and_covered(radiograph, scale, turned, fill, ground):
    pixels = radiograph.copy()
    pixels[:120, :300] = ground
    pixels, place = _written(pixels, "DOE^JANE 19670312", (20, 30), fill=fill, turned=turned)
    pixels = pixels.repeat(scale, 0).repeat(scale, 1)
    boxes = burned_in.find(pixels)
    assert boxes
    covered = burned_in.cover(pixels, boxes)
    where = tuple(slice(s.start * scale, s.stop * scale) for s in place)
    assert (covered[where] == fill).sum() <= 0.1 * (pixels[where] == fill).sum()
    far = slice(200 * scale, None)
    np.testing.assert_array_equal(covered[far], pixels[far])
    assert burned_in.find(covered) == []


def test_an_image_without_text_is_left_alone(radiograph):
    assert burned_in.find(radiograph) == []
    noise = np.random.default_rng(0).integers(0, 256, (512, 512), dtype=np.uint8)
    assert burned_in.find(noise) == []
    assert burned_in.find(np.zeros((512, 512), np.uint8)) == []


def test_a_side_marker_and_a_tiny_image_hold_no_text(radiograph):
    marked, _ = _written(radiograph, "L", (20, 30), fill=255, size=30)
    assert burned_in.find(marked) == []
    tiny, _ = _written(np.zeros((100, 100), np.uint8), "DOE JANE", (5, 5), fill=255, size=10)
    assert burned_in.find(tiny) == []


def test_text_over_the_middle_of_a_radiograph_is_not_looked_for(radiograph):
    middle, _ = _written(radiograph, "DOE JANE", (250, 200), fill=255)
    assert burned_in.find(middle) == []


def test_text_at_the_very_edge_is_covered_to_the_edge():
    pixels = np.full((256, 256), 50, np.uint8)
    covered = burned_in.cover(pixels + np.eye(256, dtype=np.uint8), [burned_in.Box(0, 0, 9, 256)])
    assert covered.shape == (256, 256)
    assert set(covered[:9].ravel().tolist()) == {50}


def test_radiographs_of_two_hospitals_are_told_by_their_text(data_root):
    with (data_root / "cxr_tb_lung/labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    found = {}
    for site in ("Montgomery", "Shenzhen"):
        mine = [row for row in rows if row["site"] == site][::12]
        paths = [data_root / f"cxr_tb_lung/images/{row['id']}.jpg" for row in mine]
        pictures = [images.read_image(path) for path in paths]
        found[site] = np.mean([bool(burned_in.find(picture.pixels)) for picture in pictures])
    # All images of Montgomery bear "PA ERECT"; some of Shenzhen "pa".
    assert found["Montgomery"] == 1
    assert found["Shenzhen"] < 0.1
