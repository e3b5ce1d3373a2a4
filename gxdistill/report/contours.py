"""Pictures of a segmentation: classes as colours, contours of truth and prediction."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

Colour = tuple[int, int, int]

# Of truth and prediction: told apart with any common colour blindness, on grey and on H&E.
TRUTH: Colour = (255, 255, 255)
PREDICTED: Colour = (0, 158, 255)
MISSED: Colour = (213, 94, 0)
EXTRA: Colour = (0, 114, 178)
# Okabe & Ito's, of the classes but the background, over and over.
CLASSES: tuple[Colour, ...] = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66))
_SIDE = 320  # Pixels: smaller images are enlarged by whole numbers.
DETAIL = 128  # Pixels a side that are shown of a larger image.
_OPACITY = 0.5


def to_colours(image: np.ndarray) -> np.ndarray:
    """Makes `[H, W, 3]` uint8 of `[H, W, C]`: of other than three channels the first, as grey."""
    return image if image.shape[-1] == 3 else np.repeat(image[..., :1], 3, axis=-1)


def worst_square(wrong: np.ndarray, side: int = DETAIL) -> tuple[slice, slice]:
    """Finds the square of an image in which most pixels are wrong; the first of several.

    Args:
      wrong: `[H, W]` bool.
      side: of the square in pixels; an image that is no larger along an axis is taken whole there.

    Returns:
      Its rows and columns.
    """
    tall, wide = (min(side, length) for length in wrong.shape)
    sums = np.pad(wrong.cumsum(axis=0, dtype=np.int64).cumsum(axis=1), ((1, 0), (1, 0)))
    rows = sums[tall:] - sums[:-tall]
    counts = rows[:, wide:] - rows[:, :-wide]
    row, col = np.unravel_index(counts.argmax(), counts.shape)
    return slice(int(row), int(row) + tall), slice(int(col), int(col) + wide)


def enlarge(pixels: np.ndarray) -> np.ndarray:
    """Repeats pixels a whole number of times, so that contours of one pixel stay thin."""
    factor = max(1, _SIDE // max(pixels.shape[:2]))
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)


def outline(labels: np.ndarray) -> np.ndarray:
    """Finds the pixels of all classes but 0 beside which another class begins, `[H, W]` bool."""
    padded = np.pad(labels, 1, mode="edge")
    middle = padded[1:-1, 1:-1]
    around = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    return (middle > 0) & np.any([side != middle for side in around], axis=0)


def painted(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Lays the colours of the classes over an image: `[H, W, 3]`, `[H, W]` -> `[H, W, 3]`."""
    colours = np.array([CLASSES[k % len(CLASSES)] for k in range(max(int(labels.max()), 1))])
    mixed = image.astype(float)
    shown = labels > 0
    over = colours[labels[shown].astype(int) - 1]
    mixed[shown] = (1 - _OPACITY) * mixed[shown] + _OPACITY * over
    return np.rint(mixed).astype(np.uint8)


def outlined(image: np.ndarray, drawn: Sequence[tuple[np.ndarray, Colour]]) -> np.ndarray:
    """Draws the outlines of label maps over an image, one after the other."""
    result = image.copy()
    for labels, colour in drawn:
        result[outline(labels)] = colour
    return result


def errors(image: np.ndarray, truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Shows, over a dimmed image, what was missed and what was taken for a class and is not."""
    dimmed = (image // 2 + 64).astype(np.uint8)
    missed = (truth > 0) & (predicted != truth)
    extra = (predicted > 0) & (predicted != truth) & ~missed
    dimmed[missed], dimmed[extra] = MISSED, EXTRA
    return dimmed


def picture(pixels: np.ndarray) -> "Image.Image":
    """Makes a picture for the page of `[H, W, 3]` uint8."""
    from PIL import Image

    return Image.fromarray(pixels)
