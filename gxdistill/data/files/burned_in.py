"""Finds and covers text that was burned into the border of a radiograph.

Names, dates and hospitals are burned in as letters of one height on one line, brighter or darker
than what is around them by far, with strokes of a few pixels. Anatomy has such strokes, too, but
not three of one height in a row. A single letter, as of a side marker, is no text.
"""

import bisect
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

_LEAST_SIDE = 128  # Pixels; in a smaller image no text can be read.
_MOST_SIDE = 1024  # Larger images are searched reduced.
_BORDER = 0.25  # Share of a side.
_CONTRAST = 60  # Levels, of the line by which text is known,
_FAINT = 40  # and of the lines beside it,
_NEAR = 1 / 8  # of the longer side away.
_STROKE = 8  # Pixels, a power of two: a stroke is thinner.
_HEIGHTS = (5, 40)  # Of a letter in pixels.
_FILLED = (0.15, 0.9)  # Share of a letter's box.
_LETTERS = 3  # That make a line.


class Box(NamedTuple):
    """A part of an image in pixels; lower and right are the first row and column after it."""

    upper: int
    left: int
    lower: int
    right: int


class _Glyph(NamedTuple):
    box: Box
    letters: int  # Several where they touch.


def find(pixels: np.ndarray) -> list[Box]:
    """Finds the lines of text, along rows or columns, in the outer quarters of a radiograph.

    Args:
      pixels: `[H, W]` uint8.

    Returns:
      A box for each line; near one, fainter lines are taken for text, too.
    """
    if min(pixels.shape) < _LEAST_SIDE:
        return []
    factor = -(-max(pixels.shape) // _MOST_SIDE)
    small = np.asarray(Image.fromarray(pixels).reduce(factor)) if factor > 1 else pixels
    border = np.ones(small.shape, bool)
    inner = [slice(int(_BORDER * side), side - int(_BORDER * side)) for side in small.shape]
    border[tuple(inner)] = False
    strokes = [_strokes(small) * border, _strokes(255 - small) * border]
    boxes = _lines(strokes, _CONTRAST)
    if boxes:
        near = max(small.shape) * _NEAR
        boxes += [b for b in _lines(strokes, _FAINT) if any(_apart(b, a) < near for a in boxes)]
    return [Box(*(factor * side for side in box)) for box in boxes]


def cover(pixels: np.ndarray, boxes: Iterable[Box]) -> np.ndarray:
    """Paints over boxes, and a little around them, with the median of what surrounds each.

    Args:
      pixels: `[H, W]` uint8; not changed.
      boxes: as `find` returns them.

    Returns:
      `[H, W]` uint8.
    """
    covered = pixels.copy()
    for upper, left, lower, right in boxes:
        margin = 2 + min(lower - upper, right - left) // 4
        around, within = (
            (slice(max(0, upper - m), lower + m), slice(max(0, left - m), right + m))
            for m in (2 * margin, margin)
        )
        ring = np.zeros(pixels.shape, bool)
        ring[around] = True
        ring[within] = False
        covered[within] = np.median(pixels[ring]) if ring.any() else 0
    return covered


def _strokes(pixels: np.ndarray) -> np.ndarray:
    """White top-hat: by how much a pixel is brighter than the brightest square around it."""
    room = np.pad(pixels, _STROKE - 1, mode="edge")
    return pixels - _slide(_slide(room, np.minimum), np.maximum)


def _slide(pixels: np.ndarray, extreme: Callable[..., np.ndarray]) -> np.ndarray:
    """The extreme of each square of `_STROKE` pixels, by doubling: `[H - 7, W - 7]`."""
    step = 1
    while step < _STROKE:
        pixels = extreme(pixels[step:], pixels[:-step])
        pixels = extreme(pixels[:, step:], pixels[:, :-step])
        step *= 2
    return pixels


def _apart(box: Box, other: Box) -> int:
    """Pixels between two boxes, along rows or columns, whichever are more; 0 where they meet."""
    return max(
        box.upper - other.lower,
        other.upper - box.lower,
        box.left - other.right,
        other.left - box.right,
        0,
    )


def _lines(strokes: Sequence[np.ndarray], contrast: int) -> list[Box]:
    boxes = []
    for each in strokes:
        along, down = _glyphs(each > contrast)
        boxes += _joined(along)
        boxes += [Box(b.left, b.upper, b.right, b.lower) for b in _joined(down)]
    return boxes


def _joined(glyphs: list[_Glyph]) -> list[Box]:
    """Joins letters of one height that follow each other along a row."""
    glyphs = sorted(glyphs, key=lambda glyph: glyph.box.left)
    rows: dict[int, list[_Glyph]] = defaultdict(list)
    for glyph in glyphs:
        rows[glyph.box.upper // _HEIGHTS[1]].append(glyph)
    taken: set[_Glyph] = set()
    boxes = []
    for glyph in glyphs:
        line = [glyph]
        while line[-1] not in taken and (right := _follower(line[-1].box, rows)):
            line.append(right)
        if sum(g.letters for g in line) >= _LETTERS and not taken.intersection(line):
            taken.update(line)
            sides = np.array([g.box for g in line])
            least, most = sides.min(axis=0).tolist(), sides.max(axis=0).tolist()
            boxes.append(Box(least[0], least[1], most[2], most[3]))
    return boxes


def _follower(box: Box, rows: dict[int, list[_Glyph]]) -> _Glyph | None:
    """The next letter to the right: near, of the same height and at the same level."""
    height = box.lower - box.upper
    glyphs = []
    for row in {(box.upper + off) // _HEIGHTS[1] for off in (-height, 0, height)}:
        line: Sequence[_Glyph] = rows.get(row, ())
        first = bisect.bisect_left(line, box.right - 1, key=lambda glyph: glyph.box.left)
        for glyph in line[first:]:
            other = glyph.box
            if other.left - box.right > 1.3 * height:
                break
            shift = abs(other.upper + other.lower - box.upper - box.lower) / 2
            if shift <= 0.25 * height and 0.7 <= (other.lower - other.upper) / height <= 1.43:
                glyphs.append(glyph)
                break
    return min(glyphs, key=lambda glyph: glyph.box.left, default=None)


def _glyphs(on: np.ndarray) -> tuple[list[_Glyph], list[_Glyph]]:
    """Finds what may be letters of a line along a row, and, transposed, along a column."""
    parts, _ = ndimage.label(on, np.ones((3, 3)))
    sizes = np.bincount(parts.ravel())
    places = ndimage.find_objects(parts)
    along, down = [], []
    for i in np.flatnonzero((sizes >= _HEIGHTS[0]) & (sizes <= _HEIGHTS[1] ** 2)).tolist():
        if not i:
            continue  # What lies between the parts.
        rows, columns = places[i - 1]
        box = Box(rows.start, columns.start, rows.stop, columns.stop)
        height, width = box.lower - box.upper, box.right - box.left
        if not _FILLED[0] <= sizes[i] / (height * width) <= _FILLED[1]:
            continue
        part = parts[rows, columns] == i
        along += _glyph(box, part)
        down += _glyph(Box(box.left, box.upper, box.right, box.lower), part.T)
    return along, down


def _glyph(box: Box, part: np.ndarray) -> list[_Glyph]:
    """A letter, or letters that touch; none where it is neither."""
    height, width = part.shape
    if not _HEIGHTS[0] <= height <= _HEIGHTS[1]:
        return []
    if width <= 1.6 * height:
        return [_Glyph(box, 1)]
    # Each row of pixels crosses a line of letters once a letter or more, but not a rib or an edge.
    padded = np.pad(part, ((0, 0), (1, 0)))
    crossings = (padded[:, 1:] & ~padded[:, :-1]).sum() / height
    return [_Glyph(box, int(crossings))] if crossings >= max(_LETTERS, width / height) else []
