"""Reads the organ mask of an image: a label map, or shapes as VIA and LabelMe write them.

Dutta & Zisserman, The VIA annotation software, ACM Multimedia 2019; Wada, LabelMe,
https://github.com/wkentaro/labelme.
"""

import base64
import functools
import io
import json
import math
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gxdistill.data.files import images, shapes
from gxdistill.data.files.grey import BadEntryError, check_pixel_count, guarded
from gxdistill.data.files.shapes import Bitmap, Ellipse, Polygon, Shape

_MAX_BYTES = 1 << 26  # Of a file of polygons, which may be those of all images.
_DAMAGED = "polygons damaged, or of a kind other than VIA or LabelMe"
_POLYGONS = ("polygon", "oriented_rectangle", "rotation", "quadrilateral")
_WITHOUT_INSIDE = ("line", "linestrip", "point", "points", "polyline")
_OTHERS = (  # Keys that tell files of other kinds.
    ({"images", "annotations"}, "COCO annotations"),
    ({"file", "metadata", "view"}, "a project of VIA 3"),
    ({"features", "type"}, "GeoJSON"),
)

_Labelled = tuple[set[str], Callable[[], Shape]]  # The shape is read only if it is the organ's.


def read_mask(
    path: Path, image: str, size: tuple[int, int], organ: Sequence[int | str] = ()
) -> np.ndarray:
    """Reads the mask of an image.

    Args:
      path: of a PNG, JPEG, TIFF or DICOM label map, or of shapes: a file `.json` of LabelMe, or one
        of VIA, which may hold those of other images too.
      image: name of the image's file, by which VIA knows it.
      size: height and width of the upright image in pixels.
      organ: the labels that are the organ: numbers of a label map, names of shapes; none stands for
        all shapes, or for the other of two values of which one is 0.

    Returns:
      The mask, `[H, W]` bool; of shapes `[*size]`.

    Raises:
      BadEntryError: the file is damaged, holds no annotation of an image of this size, a shape of
        the organ that has no inside, or does not say where the organ is.
      UserError: the file is DICOM and pydicom is not installed.
    """
    if path.suffix.lower() == ".json":
        with guarded(_DAMAGED):
            return shapes.fill(_shapes(path, image, size, {_composed(n) for n in organ}), size)
    numbers = [label for label in organ if isinstance(label, int)]
    if organ and not numbers:
        raise BadEntryError("a label map, of which the setting for the organ names no number")
    return images.read_mask(path, numbers)


def _shapes(path: Path, name: str, size: tuple[int, int], organ: set[str]) -> list[Shape]:
    try:
        content = _parsed(path, path.stat().st_mtime_ns)
    except OSError as error:
        raise BadEntryError(f"file cannot be opened ({type(error).__name__})") from error
    if not isinstance(content, dict):
        raise BadEntryError(_DAMAGED)
    for keys, kind in _OTHERS:
        if keys <= content.keys():
            raise BadEntryError(f"{kind}; shapes of LabelMe or VIA 2 are expected")
    labelled = list(_labelme(content, size) if "shapes" in content else _via(content, name))
    chosen = [shape() for labels, shape in labelled if not organ or labels & organ]
    if labelled and not chosen:
        raise BadEntryError("none of its shapes bears a label of the organ")
    return chosen


@functools.lru_cache(maxsize=8)
def _parsed(path: Path, _: int) -> Any:
    """Reads a file once for all the images that it is of; the number is of its last change."""
    with path.open("rb") as file:
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise BadEntryError(f"polygons of more than {_MAX_BYTES >> 20} MiB")
    return json.loads(content)


def _labelme(content: dict[str, Any], size: tuple[int, int]) -> Iterator[_Labelled]:
    given = content.get("imageHeight"), content.get("imageWidth")
    if any(
        told is not None and float(told) != side for told, side in zip(given, size, strict=True)
    ):
        raise BadEntryError("polygons drawn on an image of another size")
    for shape in content["shapes"]:
        yield {_composed(shape["label"])}, functools.partial(_labelme_shape, shape)


def _labelme_shape(shape: dict[str, Any]) -> Shape:
    kind = shape.get("shape_type") or "polygon"
    points = [(float(x), float(y)) for x, y in shape["points"]]
    if kind == "rectangle" and len(points) == 2:
        (x0, y0), (x1, y1) = points
        return _rectangle(x0, y0, x1, y1)
    if kind in _POLYGONS or (kind == "rectangle" and len(points) == 4):
        return Polygon(points)
    if kind == "circle" and len(points) == 2:
        (x, y), (edge_x, edge_y) = points
        radius = math.hypot(edge_x - x, edge_y - y)
        return Ellipse(x, y, radius, radius)
    if kind == "mask" and points:
        return _bitmap(points, shape.get("mask"))
    raise _refused(kind, len(points))


def _bitmap(points: Sequence[tuple[float, float]], encoded: Any) -> Shape:
    """A mask of its own, a PNG in base64 whose upper left pixel is at the first point."""
    if not isinstance(encoded, str):
        raise BadEntryError("shape of kind 'mask' without its pixels")
    content = base64.b64decode(encoded, validate=True)
    with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
        check_pixel_count(image.height, image.width)
        if image.mode not in ("1", "L"):
            raise BadEntryError("shape of kind 'mask' in colours; two values are expected")
        pixels = np.asarray(image).astype(np.uint8)
    if not ((pixels == 0) | (pixels == pixels.max())).all():
        raise BadEntryError("shape of kind 'mask' of more than two values")
    # LabelMe cuts the mask out along whole pixels.
    return Bitmap(round(points[0][0]), round(points[0][1]), pixels > 0)


def _via(content: dict[str, Any], name: str) -> Iterator[_Labelled]:
    entries = list(content.get("_via_img_metadata", content).values())
    wanted = _file_name(name)
    listed = [entry for entry in entries if _file_name(entry["filename"]) == wanted]
    if len(listed) != 1:
        near = [e for e in entries if _file_name(e["filename"]).casefold() == wanted.casefold()]
        hint = "; one's name differs in upper and lower case" if near and not listed else ""
        raise BadEntryError(f"{len(listed)} annotations of this image, one is expected{hint}")
    regions = listed[0]["regions"]
    for region in regions.values() if isinstance(regions, dict) else regions:
        labels = set(_via_labels(region.get("region_attributes") or {}))
        yield labels, functools.partial(_via_shape, region["shape_attributes"])


def _file_name(path: str) -> str:
    """The name of a file as all systems write it, without its folders."""
    return _composed(str(path).replace("\\", "/").rpartition("/")[2])


def _composed(text: Any) -> str:
    """A text in the form that composes letters: one system writes "ü" as one sign, one as two."""
    return unicodedata.normalize("NFC", str(text))


def _via_labels(attributes: dict[str, Any]) -> Iterator[str]:
    for value in attributes.values():
        if isinstance(value, dict):  # Check boxes: those that are set.
            yield from (_composed(name) for name, is_set in value.items() if is_set)
        else:
            yield _composed(value)


def _via_shape(shape: dict[str, Any]) -> Shape:
    kind = shape["name"]
    if kind == "polygon":
        xs, ys = shape["all_points_x"], shape["all_points_y"]
        return Polygon([(float(x), float(y)) for x, y in zip(xs, ys, strict=True)])
    if kind == "rect":
        x, y = float(shape["x"]), float(shape["y"])
        return _rectangle(x, y, x + shape["width"], y + shape["height"])
    if kind == "circle":
        return Ellipse(shape["cx"], shape["cy"], shape["r"], shape["r"])
    if kind == "ellipse":
        return Ellipse(shape["cx"], shape["cy"], shape["rx"], shape["ry"], shape.get("theta", 0))
    raise _refused(kind, 1)


def _refused(kind: Any, n_points: int) -> BadEntryError:
    if kind in _WITHOUT_INSIDE:
        return BadEntryError(
            f"shape of kind {kind!r}, which has no inside; delete it, or give it another label and "
            f"name the organ's by `data.organ`"
        )
    return BadEntryError(
        f"shape of kind {str(kind)[:20]!r} and {n_points} points, which is not read"
    )


def _rectangle(x0: float, y0: float, x1: float, y1: float) -> Polygon:
    return Polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
