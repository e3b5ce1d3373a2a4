import base64
import io
import json

import numpy as np
import pytest
from matplotlib.path import Path as Outline
from PIL import Image

from gxdistill.data.files import masks, shapes
from gxdistill.data.files.grey import BadEntryError
from gxdistill.data.files.shapes import Ellipse, Polygon

SIZE = (50, 70)
ROWS, COLUMNS = np.indices(SIZE) + 0.5


def test_a_polygon_holds_the_pixels_whose_centre_is_inside():
    rng = np.random.default_rng(0)
    for _ in range(30):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
        radii = rng.uniform(3, 24, 9)
        points = np.column_stack([35 + radii * np.cos(angles), 25 + radii * np.sin(angles)])
        centres = np.column_stack([COLUMNS.ravel(), ROWS.ravel()])
        expected = Outline(np.vstack([points, points[:1]])).contains_points(centres)
        filled = shapes.fill([Polygon(points.tolist())], SIZE)
        np.testing.assert_array_equal(filled, expected.reshape(SIZE))


def test_a_polygon_that_crosses_itself_is_inside_where_it_runs_round_once():
    bow = Polygon([(10, 10), (50, 40), (50, 10), (10, 40)])
    filled = shapes.fill([bow], SIZE)
    assert filled[25, 12]
    assert filled[25, 48]
    assert not filled[12, 30]


@pytest.mark.parametrize("turn", [0, 0.7, np.pi / 2])
def test_an_ellipse_holds_the_pixels_whose_centre_is_inside(turn):
    filled = shapes.fill([Ellipse(33.3, 24.6, 20, 9, turn)], SIZE)
    offset = (COLUMNS - 33.3) + 1j * (ROWS - 24.6)
    along = offset * np.exp(-1j * turn)
    expected = (along.real / 20) ** 2 + (along.imag / 9) ** 2 <= 1
    np.testing.assert_array_equal(filled, expected)


def _labelme(path, kind, points, **more):
    shape = {"label": "organ", "shape_type": kind, "points": points, **more}
    path.write_text(json.dumps({"shapes": [shape], "imageHeight": 50, "imageWidth": 70}))
    return masks.read_mask(path, "a.png", SIZE)


CORNERS = [[10, 5], [30, 5], [30, 25], [10, 25]]


@pytest.mark.parametrize(
    ("kind", "points"),
    [
        ("polygon", CORNERS),
        (None, CORNERS),
        ("rectangle", CORNERS[::2]),
        ("rectangle", CORNERS),
        ("oriented_rectangle", CORNERS),
        ("rotation", CORNERS),
    ],
)
def test_every_kind_that_has_an_inside_is_filled(tmp_path, kind, points):
    expected = (COLUMNS > 10) & (COLUMNS < 30) & (ROWS > 5) & (ROWS < 25)
    np.testing.assert_array_equal(_labelme(tmp_path / "m.json", kind, points), expected)


def test_a_mask_within_labelme_is_put_in_its_place(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 2, (11, 21)).astype(bool)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    encoded = base64.b64encode(buffer.getvalue()).decode()
    mask = _labelme(tmp_path / "m.json", "mask", [[10, 5], [30, 15]], mask=encoded)
    np.testing.assert_array_equal(mask[5:16, 10:31], pixels)
    assert mask.sum() == pixels.sum()
    with pytest.raises(BadEntryError, match="outside of the image"):
        _labelme(tmp_path / "n.json", "mask", [[60, 5], [80, 15]], mask=encoded)


@pytest.mark.parametrize(
    ("kind", "points", "reason"),
    [
        ("line", CORNERS[:2], "kind 'line', which has no inside"),
        ("linestrip", CORNERS, "kind 'linestrip', which has no inside"),
        ("point", CORNERS[:1], "kind 'point', which has no inside"),
        ("spline", CORNERS, "kind 'spline' and 4 points, which is not read"),
        ("polygon", [], "polygon of 0 corners that encloses nothing"),
        ("polygon", CORNERS[:1], "polygon of 1 corners"),
        ("polygon", [[1, 1], [2, 2], [3, 3]], "polygon of 3 corners that encloses nothing"),
        ("rectangle", CORNERS[:3], "kind 'rectangle' and 3 points"),
        ("circle", [[9, 9], [9, 9]], "encloses nothing"),
        ("mask", CORNERS[:2], "without its pixels"),
    ],
)
def test_a_shape_without_an_inside_is_refused_by_name(tmp_path, kind, points, reason):
    with pytest.raises(BadEntryError, match=reason):
        _labelme(tmp_path / "m.json", kind, points)
