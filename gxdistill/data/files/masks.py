"""Reads the organ mask of an image: a label map, or polygons as VIA and LabelMe write them.

Dutta & Zisserman, The VIA annotation software, ACM Multimedia 2019; Wada, LabelMe,
https://github.com/wkentaro/labelme.
"""

import functools
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from gxdistill.data.files import images
from gxdistill.data.files.grey import BadEntryError

_MAX_BYTES = 1 << 26  # Of a file of polygons, which may be those of all images.
_SLACK = 1.0  # Pixels by which annotators draw over an edge.
_CORNERS = 64  # Of a circle.

_Points = list[tuple[float, float]]  # (column, row) in pixels, (0, 0) the image's upper left corner


def read_mask(
    path: Path, image: str, size: tuple[int, int], organ: Sequence[int | str] = ()
) -> np.ndarray:
    """Reads the mask of an image.

    Args:
      path: of a PNG, JPEG, TIFF or DICOM label map, or of polygons: a file `.json` of LabelMe, or
        one of VIA, which may hold those of other images too.
      image: name of the image's file, by which VIA knows it.
      size: height and width of the image in pixels.
      organ: the labels that are the organ: numbers of a label map, names of polygons; none stands
        for all.

    Returns:
      The mask, `[H, W]` bool; of polygons `[*size]`.

    Raises:
      BadEntryError: the file is damaged, or holds no annotation of an image of this size.
      UserError: the file is DICOM and pydicom is not installed.
    """
    if path.suffix.lower() == ".json":
        return _draw(_polygons(path, image, size, set(map(str, organ))), size)
    numbers = [label for label in organ if isinstance(label, int)]
    if organ and not numbers:
        raise BadEntryError("a label map, of which the setting for the organ names no number")
    return images.read_mask(path, numbers)


def _draw(polygons: list[_Points], size: tuple[int, int]) -> np.ndarray:
    """Fills polygons; a pixel that an edge runs across may fall to either side."""
    height, width = size
    drawn = Image.new("L", (width, height))
    for points in polygons:
        for along, side in zip(zip(*points, strict=True), (width, height), strict=True):
            if not all(-_SLACK <= at <= side + _SLACK for at in along):
                raise BadEntryError("polygon outside of the image; it may be of another size")
        # Pillow's whole numbers are the centres of pixels.
        ImageDraw.Draw(drawn).polygon([(x - 0.5, y - 0.5) for x, y in points], fill=1)
    return np.asarray(drawn) > 0


def _polygons(path: Path, name: str, size: tuple[int, int], organ: set[str]) -> list[_Points]:
    try:
        content = _parsed(path, path.stat().st_mtime_ns)
        labelled = content.get("shapes")
        found = _via(content, name) if labelled is None else _labelme(content, size)
        return [points for label, points in found if not organ or label & organ]
    except BadEntryError:
        raise
    except OSError as error:
        raise BadEntryError(f"file cannot be opened ({type(error).__name__})") from error
    except (AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise BadEntryError("polygons damaged, or of a kind other than VIA or LabelMe") from error


@functools.lru_cache(maxsize=8)
def _parsed(path: Path, _: int) -> dict[str, Any]:
    """Reads a file once for all the images that it is of; the number is of its last change."""
    with path.open("rb") as file:
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise BadEntryError(f"polygons of more than {_MAX_BYTES >> 20} MiB")
    return json.loads(content)


def _labelme(content: dict[str, Any], size: tuple[int, int]) -> Iterator[tuple[set[str], _Points]]:
    given = content.get("imageHeight"), content.get("imageWidth")
    if given != (None, None) and given != size:
        raise BadEntryError("polygons drawn on an image of another size")
    for shape in content["shapes"]:
        points = [(float(x), float(y)) for x, y in shape["points"]]
        kind = shape.get("shape_type", "polygon")
        if kind == "rectangle":
            (x0, y0), (x1, y1) = points
            points = _rectangle(x0, y0, x1, y1)
        elif kind == "circle":
            (x, y), (edge_x, edge_y) = points
            radius = math.hypot(edge_x - x, edge_y - y)
            points = _ellipse(x, y, radius, radius)
        elif kind != "polygon":
            continue  # A line or a point has no inside.
        yield {str(shape["label"])}, points


def _via(content: dict[str, Any], name: str) -> Iterator[tuple[set[str], _Points]]:
    entries = content.get("_via_img_metadata", content).values()
    mine = [entry for entry in entries if entry["filename"] == name]
    if len(mine) != 1:
        raise BadEntryError(f"{len(mine)} annotations of this image, one is expected")
    regions = mine[0]["regions"]
    for region in regions.values() if isinstance(regions, dict) else regions:
        points = _via_points(region["shape_attributes"])
        if points:
            yield {str(value) for value in region.get("region_attributes", {}).values()}, points


def _via_points(shape: dict[str, Any]) -> _Points:
    kind = shape["name"]
    if kind == "polygon":
        xs, ys = shape["all_points_x"], shape["all_points_y"]
        return [(float(x), float(y)) for x, y in zip(xs, ys, strict=True)]
    if kind == "rect":
        x, y = float(shape["x"]), float(shape["y"])
        return _rectangle(x, y, x + shape["width"], y + shape["height"])
    if kind == "circle":
        return _ellipse(shape["cx"], shape["cy"], shape["r"], shape["r"])
    if kind == "ellipse":
        return _ellipse(
            shape["cx"], shape["cy"], shape["rx"], shape["ry"], turn=shape.get("theta", 0)
        )
    return []  # A line or a point has no inside.


def _rectangle(x0: float, y0: float, x1: float, y1: float) -> _Points:
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def _ellipse(x: float, y: float, across: float, down: float, turn: float = 0.0) -> _Points:
    """Corners of an ellipse, turned by `turn` radians from x to y."""
    angles = np.linspace(0, 2 * np.pi, _CORNERS, endpoint=False)
    u, v = across * np.cos(angles), down * np.sin(angles)
    xs = x + u * math.cos(turn) - v * math.sin(turn)
    ys = y + u * math.sin(turn) + v * math.cos(turn)
    return list(zip(xs.tolist(), ys.tolist(), strict=True))
