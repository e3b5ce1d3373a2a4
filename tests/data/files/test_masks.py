import json

import numpy as np
import pytest
from matplotlib.path import Path as Outline
from PIL import Image
from scipy import ndimage

from gxdistill.data.files import masks
from gxdistill.data.files.grey import BadEntryError

SIZE = (60, 80)
STAR = [(10.0, 5.0), (60.0, 12.0), (70.0, 50.0), (35.0, 30.0), (8.0, 55.0)]  # (column, row)


def _labelme(shapes, **fields):
    named = [{"label": name, "shape_type": kind, "points": at} for name, kind, at in shapes]
    return {"version": "5.4.1", "imagePath": "a.png", "shapes": named, **fields}


def _via(attributes, name="a.png", organ="stomach"):
    regions = [{"shape_attributes": s, "region_attributes": {"name": organ}} for s in attributes]
    return {f"{name}123": {"filename": name, "size": 123, "regions": regions}}


def _polygon(points):
    xs, ys = zip(*points, strict=True)
    return {"name": "polygon", "all_points_x": xs, "all_points_y": ys}


def _read(tmp_path, content, organ=()):
    path = tmp_path / "mask.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    masks._parsed.cache_clear()
    return masks.read_mask(path, "a.png", SIZE, organ)


def _centres_inside(points):
    """By another library: which pixels have their centre in a polygon."""
    rows, columns = np.indices(SIZE) + 0.5
    centres = np.column_stack([columns.ravel(), rows.ravel()])
    return Outline(points).contains_points(centres).reshape(SIZE)


@pytest.mark.parametrize(
    "content",
    [
        _labelme([("stomach", "polygon", STAR)], imageHeight=60, imageWidth=80),
        _via([_polygon(STAR)]),
        {"_via_settings": {}, "_via_img_metadata": _via([_polygon(STAR)])},
        {"a": {"filename": "b.png", "regions": {}}, **_via([_polygon(STAR)])},
    ],
    ids=["LabelMe", "VIA", "VIA project", "VIA of two images"],
)
def test_a_polygon_is_filled(tmp_path, content):
    mask = _read(tmp_path, content)
    expected = _centres_inside(STAR)
    assert mask.dtype == bool
    square = np.ones((3, 3))
    assert mask[ndimage.binary_erosion(expected, square)].all()
    assert not mask[~ndimage.binary_dilation(expected, square)].any()
    assert mask.sum() == pytest.approx(expected.sum(), rel=0.1)


def test_rectangles_and_ellipses_have_their_area(tmp_path):
    rectangle = {"name": "rect", "x": 10, "y": 5, "width": 30, "height": 20}
    assert _read(tmp_path, _via([rectangle])).sum() == pytest.approx(600, rel=0.1)
    circle = {"name": "circle", "cx": 40, "cy": 30, "r": 20}
    assert _read(tmp_path, _via([circle])).sum() == pytest.approx(np.pi * 400, rel=0.06)
    ellipse = {"name": "ellipse", "cx": 40, "cy": 30, "rx": 24, "ry": 10, "theta": np.pi / 2}
    turned = _read(tmp_path, _via([ellipse]))
    assert turned.sum() == pytest.approx(np.pi * 240, rel=0.1)
    assert turned.any(axis=1).sum() > 2 * turned.any(axis=0).sum() - 10
    shapes = [("s", "rectangle", [(10, 5), (40, 25)]), ("s", "circle", [(60, 30), (60, 40)])]
    both = _read(tmp_path, _labelme(shapes))
    assert both.sum() == pytest.approx(600 + np.pi * 100, rel=0.1)


def test_only_the_organ_is_taken(tmp_path):
    shapes = [("stomach", "polygon", STAR), ("marker", "rectangle", [(0, 0), (80, 60)])]
    shapes.append(("marker", "line", [(0, 0), (80, 60)]))
    np.testing.assert_array_equal(
        _read(tmp_path, _labelme(shapes), ("stomach",)), _read(tmp_path, _labelme(shapes[:1]))
    )
    with pytest.raises(BadEntryError, match="none of its shapes bears a label of the organ"):
        _read(tmp_path, _via([_polygon(STAR)], organ="marker"), ("stomach",))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "polygons damaged"),
        ("[" * 100_000, "polygons damaged"),
        ([], "polygons damaged"),
        ({"shapes": [{"label": "a"}]}, "polygons damaged"),
        (_labelme([("s", "polygon", [("a", 1)] * 3)]), "polygons damaged"),
        (_labelme([("s", "polygon", STAR)], imageHeight=6, imageWidth=8), "of another size"),
        (_labelme([("s", "polygon", [(0, 0), (500, 0), (9, 9)])]), "outside of the image"),
        (_labelme([("s", "polygon", [(0, 0), (float("nan"), 0), (9, 9)])]), "outside of the image"),
        (_via([_polygon(STAR)], name="b.png"), "0 annotations of this image"),
        (_via([{"name": "rect", "x": 1e300, "y": 0, "width": 1, "height": 1}]), "outside of the"),
    ],
)
def test_what_are_no_polygons_of_the_image_is_refused(tmp_path, content, reason):
    with pytest.raises(BadEntryError, match=reason):
        _read(tmp_path, content)


LABELS = np.random.default_rng(0).integers(0, 5, SIZE).astype(np.uint8)


def _palette(path):
    image = Image.fromarray(LABELS).convert("P")
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    image.putdata(LABELS.ravel().tolist())
    image.save(path)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "wide.tif", "palette.png"])
def test_of_a_label_map_the_labels_of_the_organ_are_taken(tmp_path, name):
    path = tmp_path / name
    if name == "palette.png":
        _palette(path)
    else:
        Image.fromarray(LABELS.astype(np.uint16) if "wide" in name else LABELS).save(path)
    with pytest.raises(BadEntryError, match=r"5 (values|indices)"):
        masks.read_mask(path, "a.png", SIZE)
    chosen = masks.read_mask(path, "a.png", SIZE, (2, 3, "stomach"))
    np.testing.assert_array_equal(chosen, (LABELS == 2) | (LABELS == 3))


def test_labels_of_colours_or_by_name_cannot_be_chosen(tmp_path):
    Image.fromarray(np.dstack([LABELS] * 3)).save(tmp_path / "a.png")
    with pytest.raises(BadEntryError, match="need a grey PNG or TIFF"):
        masks.read_mask(tmp_path / "a.png", "a.png", SIZE, (1,))
    with pytest.raises(BadEntryError, match="names no number"):
        masks.read_mask(tmp_path / "a.png", "a.png", SIZE, ("stomach",))


def _segmentation(path, write_dicom, frames, numbers, **elements):
    pydicom = pytest.importorskip("pydicom", reason="needs the extra `dicom`")
    groups = []
    for number in numbers:
        segment, group = pydicom.Dataset(), pydicom.Dataset()
        segment.ReferencedSegmentNumber = number
        group.SegmentIdentificationSequence = [segment]
        groups.append(group)
    bits = elements.pop("bits", 1)
    packed = np.packbits(frames.ravel(), bitorder="little") if bits == 1 else frames
    write_dicom(
        path,
        frames,
        Modality="SEG",
        BitsAllocated=bits,
        BitsStored=bits,
        HighBit=bits - 1,
        PixelData=packed.tobytes() + b"\0" * (packed.size % 2),
        PerFrameFunctionalGroupsSequence=groups,
        **{"SegmentationType": "BINARY", **elements},
    )


def test_a_dicom_segmentation_is_the_union_of_its_segments(tmp_path, write_dicom):
    frames = np.random.default_rng(0).integers(0, 2, (2, *SIZE)).astype(np.uint8)
    path = tmp_path / "seg.dcm"
    _segmentation(path, write_dicom, frames, (1, 2))
    np.testing.assert_array_equal(masks.read_mask(path, "a", SIZE), frames.any(0))
    np.testing.assert_array_equal(masks.read_mask(path, "a", SIZE, (2,)), frames[1] > 0)
    _segmentation(path, write_dicom, frames, (1, 1))
    with pytest.raises(BadEntryError, match="several slices"):
        masks.read_mask(path, "a", SIZE)
    levels = np.random.default_rng(0).integers(0, 256, (1, *SIZE)).astype(np.uint8)
    fractional = {"SegmentationType": "FRACTIONAL", "MaximumFractionalValue": 200, "bits": 8}
    _segmentation(path, write_dicom, levels, (1,), **fractional)
    np.testing.assert_array_equal(masks.read_mask(path, "a", SIZE), levels[0] >= 100)


def test_a_dicom_label_map_is_read_without_a_window(tmp_path, write_dicom):
    write_dicom(tmp_path / "a.dcm", LABELS, WindowCenter=2, WindowWidth=2)
    with pytest.raises(BadEntryError, match=r"5 values \(0, 1, 2, 3, 4\)"):
        masks.read_mask(tmp_path / "a.dcm", "a", SIZE)
    np.testing.assert_array_equal(masks.read_mask(tmp_path / "a.dcm", "a", SIZE, (4,)), LABELS == 4)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (_via([{"name": "polyline", "all_points_x": [1], "all_points_y": [1]}]), "'polyline'"),
        (_via([{"name": "point", "cx": 1, "cy": 1}]), "'point', which has no inside"),
        (_via([_polygon(STAR[:2])]), "polygon of 2 corners that encloses nothing"),
        ({"images": [], "annotations": []}, "COCO annotations"),
        (_via([_polygon(STAR)], name="A.png"), "differs in upper and lower case"),
    ],
)
def test_a_shape_or_a_file_of_another_kind_is_named(tmp_path, content, reason):
    with pytest.raises(BadEntryError, match=reason):
        _read(tmp_path, content)


def test_the_boxes_checked_in_via_are_labels(tmp_path):
    content = _via([_polygon(STAR)], organ={"stomach": True, "other": False})
    assert _read(tmp_path, content, ("stomach",)).any()
    with pytest.raises(BadEntryError, match="none of its shapes"):
        _read(tmp_path, content, ("other",))


def test_labels_are_the_same_composed_and_decomposed(tmp_path):
    shapes = [("lu\u0308ng", "polygon", STAR), ("l\u00fcng", "rectangle", [(1, 1), (4, 4)])]
    whole = _read(tmp_path, _labelme(shapes))
    for name in ("lu\u0308ng", "l\u00fcng"):
        np.testing.assert_array_equal(_read(tmp_path, _labelme(shapes), (name,)), whole)
    star = _read(tmp_path, _via([_polygon(STAR)]))
    via = _via([_polygon(STAR)], organ="lu\u0308ng")
    np.testing.assert_array_equal(_read(tmp_path, via, ("l\u00fcng",)), star)


@pytest.mark.parametrize(
    "fields",
    [{"imageHeight": "60", "imageWidth": 80}, {"imageHeight": 60}, {"imageWidth": 80.0}],
)
def test_a_size_is_compared_as_far_as_it_is_told(tmp_path, fields):
    star = _read(tmp_path, _labelme([("organ", "polygon", STAR)]))
    content = _labelme([("organ", "polygon", STAR)], **fields)
    np.testing.assert_array_equal(_read(tmp_path, content), star)
    with pytest.raises(BadEntryError, match="of another size"):
        _read(tmp_path, _labelme([("organ", "polygon", STAR)], imageWidth=79))
