"""Fills the shapes of annotators: a pixel is inside if its centre is.

A shape that has no inside, as a line or a polygon of two corners, is refused, never left out.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gxdistill.data.files.grey import BadEntryError

Points = Sequence[
    tuple[float, float]
]  # (column, row) in pixels, (0, 0) the image's upper left corner

_SLACK = 1.0  # Pixels by which annotators draw over an edge.
_MAX_CROSSINGS = 1 << 24  # Of a polygon's edges with rows of pixels.
_OUTSIDE = "polygon outside of the image; it may be of another size"


class Ellipse(NamedTuple):
    """An ellipse in pixels.

    Attributes:
      x: column of its centre.
      y: row of its centre.
      across: radius along the columns, before it is turned.
      down: radius along the rows.
      turn: radians from columns to rows.
    """

    x: float
    y: float
    across: float
    down: float
    turn: float = 0.0


class Bitmap(NamedTuple):
    """Pixels `[h, w]` bool, of which the upper left one is at (`column`, `row`)."""

    column: int
    row: int
    pixels: np.ndarray


class Polygon(NamedTuple):
    """A closed line through corners; what it runs round an odd number of times is inside."""

    points: Points


Shape = Polygon | Ellipse | Bitmap


def fill(shapes: Sequence[Shape], size: tuple[int, int]) -> np.ndarray:
    """Joins the insides of shapes.

    Args:
      shapes: in pixels.
      size: height and width of the image in pixels.

    Returns:
      The mask, `[*size]` bool.

    Raises:
      BadEntryError: a shape has no inside, or lies outside of the image.
    """
    mask = np.zeros(size, bool)
    for shape in shapes:
        if isinstance(shape, Polygon):
            _fill_polygon(mask, shape.points)
        elif isinstance(shape, Ellipse):
            _fill_ellipse(mask, shape)
        else:
            _fill_bitmap(mask, shape)
    return mask


def _check_inside(mask: np.ndarray, xs: np.ndarray, ys: np.ndarray) -> None:
    for along, side in ((ys, mask.shape[0]), (xs, mask.shape[1])):
        if not ((along >= -_SLACK) & (along <= side + _SLACK)).all():
            raise BadEntryError(_OUTSIDE)


def _fill_polygon(mask: np.ndarray, points: Points) -> None:
    """Toggles each row where an edge crosses the line through the centres of its pixels."""
    corners = np.asarray(points, np.float64).reshape(-1, 2)
    if len(corners):
        _check_inside(mask, corners[:, 0], corners[:, 1])
    if len(corners) < 3 or np.linalg.matrix_rank(corners - corners[0], tol=1e-9) < 2:
        raise BadEntryError(f"polygon of {len(corners)} corners that encloses nothing")
    ahead = np.roll(corners, -1, axis=0)
    # An edge crosses row r if r + 0.5, its centre, is at or below one end and above the other.
    first, last = (np.ceil(ys - 0.5).astype(np.int64) for ys in (corners[:, 1], ahead[:, 1]))
    first, last = (
        np.clip(ends, 0, mask.shape[0])
        for ends in (np.minimum(first, last), np.maximum(first, last))
    )
    counts = last - first
    if counts.sum() > _MAX_CROSSINGS:
        raise BadEntryError(f"polygon of {len(corners)} corners, which is too many")
    edges = np.repeat(np.arange(len(corners)), counts)
    rows = np.arange(len(edges)) - np.repeat(np.cumsum(counts) - counts, counts) + first[edges]
    (x0, y0), (x1, y1) = corners[edges].T, ahead[edges].T
    crossings = x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0)
    columns = np.ceil(crossings - 0.5).astype(np.int64).clip(0, mask.shape[1])
    if not len(rows):
        return
    top, left = rows.min(), columns.min()
    toggles = np.zeros((rows.max() - top + 1, columns.max() - left + 1), np.uint8)
    np.add.at(toggles, (rows - top, columns - left), 1)
    inside = np.cumsum(toggles, axis=1, dtype=np.uint8) % 2 == 1
    part = mask[top : top + inside.shape[0], left : left + inside.shape[1]]
    part |= inside[:, : part.shape[1]]


def _fill_ellipse(mask: np.ndarray, shape: Ellipse) -> None:
    x, y, across, down, turn = map(float, shape)
    if not across > 0 or not down > 0:
        raise BadEntryError("circle or ellipse that encloses nothing")
    cos, sin = math.cos(turn), math.sin(turn)
    reach_x, reach_y = math.hypot(across * cos, down * sin), math.hypot(across * sin, down * cos)
    _check_inside(mask, np.array([x - reach_x, x + reach_x]), np.array([y - reach_y, y + reach_y]))
    rows = slice(max(0, math.floor(y - reach_y)), math.ceil(y + reach_y) + 1)
    columns = slice(max(0, math.floor(x - reach_x)), math.ceil(x + reach_x) + 1)
    part = mask[rows, columns]
    v, u = np.ogrid[: part.shape[0], : part.shape[1]]
    u, v = u + columns.start + 0.5 - x, v + rows.start + 0.5 - y
    part |= ((u * cos + v * sin) / across) ** 2 + ((v * cos - u * sin) / down) ** 2 <= 1


def _fill_bitmap(mask: np.ndarray, shape: Bitmap) -> None:
    height, width = shape.pixels.shape
    bottom, right = shape.row + height, shape.column + width
    if shape.row < 0 or shape.column < 0 or bottom > mask.shape[0] or right > mask.shape[1]:
        raise BadEntryError(_OUTSIDE)
    mask[shape.row : bottom, shape.column : right] |= shape.pixels
