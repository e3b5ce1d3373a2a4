"""Grey pixels of any origin: checks, levels of 8 bits, other sizes."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from gxdistill.errors import UserError

Spacing = tuple[float, float]  # From row to row and from column to column, in millimetres.
Rule = Callable[[np.ndarray, np.ndarray | None], np.ndarray]

MAX_PIXELS = 1 << 26  # 8192 x 8192; a header that claims more is taken for a decompression bomb.
_MAX_WIDE_PIXELS = 1 << 24  # Of values that no table of 16 bits holds: each takes eight bytes.
_PERCENTILES = (0.5, 99.5)
_LEVELS = 1 << 16
_BLOCK = 1 << 20  # Pixels that are looked up at a time.


class BadEntryError(Exception):
    """An entry of a cohort that cannot be used; the message is the reason, for people to read."""


class Header(NamedTuple):
    """What a file says of its image before a pixel is decoded.

    Attributes:
      size: height and width in pixels.
      spacing: of the pixels; None where the file does not say.
    """

    size: tuple[int, int]
    spacing: Spacing | None = None


class Picture(NamedTuple):
    """A decoded image.

    Attributes:
      pixels: `[H, W]` uint8, black is 0, or `[H, W, 3]` where colours are asked for.
      bits: depth of the stored pixels.
      window: how they became 8 bits: "as stored", "percentiles", "window" or "lookup table".
      spacing: of the pixels; None where the file does not say.
      says_text: whether the file says that text is burned in.
      turned: whether an orientation of the file was applied, so that pixels are not as stored.
    """

    pixels: np.ndarray
    bits: int = 8
    window: str = "as stored"
    spacing: Spacing | None = None
    says_text: bool = False
    turned: bool = False


@contextlib.contextmanager
def guarded(reason: str) -> Iterator[None]:
    """Makes whatever a file raises within a reason to leave it out: damaged bytes raise anything.

    Raises:
      BadEntryError: as it was, or for another error; it says `reason` and the error's type, whose
        text may quote the file.
      UserError: as it was.
    """
    try:
        yield
    except (BadEntryError, UserError):
        raise
    except MemoryError as error:
        raise BadEntryError("asks for more memory than there is") from error
    except RecursionError as error:
        raise BadEntryError(f"{reason}: nested too deeply") from error
    except Exception as error:
        raise BadEntryError(f"{reason} ({type(error).__name__})") from error


def check_finite(values: np.ndarray) -> None:
    """Refuses pixels that are not numbers, or infinite.

    Raises:
      BadEntryError: a value is not finite.
    """
    if not np.isfinite(values).all():
        raise BadEntryError("pixels that are not finite numbers")


def check_pixel_count(height: int, width: int) -> None:
    """Refuses an image whose header claims no pixel or an absurd number of them.

    Raises:
      BadEntryError: the image has no pixel, or more than `MAX_PIXELS`.
    """
    if not 0 < height * width <= MAX_PIXELS:
        raise BadEntryError(
            f"header claims {height}x{width} pixels, more than {MAX_PIXELS} or none"
        )


def stretch(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Maps `low..high` linearly to 0..255, rounds, and clips what lies outside.

    Args:
      values: any shape, any real dtype.
      low: what becomes 0.
      high: what becomes 255; greater than `low`.

    Returns:
      Same shape, uint8.
    """
    scaled = (values.astype(np.float64) - low) * (255 / (high - low))
    return np.rint(scaled.clip(0, 255)).astype(np.uint8)


def map_values(stored: np.ndarray, rule: Rule, ignored: np.ndarray | None = None) -> np.ndarray:
    """Maps each stored value to a level; integers through a table of at most 65,536 values.

    Args:
      stored: `[H, W]`, integer or float.
      rule: from values `[n]`, and how many pixels have each or None for one each, to `[n]` uint8.
      ignored: `[H, W]` bool, pixels that show nothing; they become 0 and do not count.

    Returns:
      Same shape, uint8.

    Raises:
      BadEntryError: there are too many pixels of a wider range, or none that shows anything.
    """
    levels = np.zeros(stored.shape, np.uint8)
    if ignored is None:
        levels.reshape(-1)[:] = _map_shown(stored.reshape(-1), rule)
    elif ignored.all():
        raise BadEntryError("nothing but padding")
    else:
        levels[~ignored] = _map_shown(stored[~ignored], rule)
    return levels


def _map_shown(flat: np.ndarray, rule: Rule) -> np.ndarray:
    first = flat.min() if flat.dtype.kind in "iu" else 0
    if flat.dtype.kind not in "iu" or int(flat.max()) - int(first) >= _LEVELS:
        if flat.size > _MAX_WIDE_PIXELS:
            raise BadEntryError(f"more than {_MAX_WIDE_PIXELS} pixels of more than 16 bits")
        return rule(flat, None)
    values = np.arange(int(first), int(flat.max()) + 1)
    # By blocks: NumPy makes eight bytes of every index.
    indices = [slice(i, i + _BLOCK) for i in range(0, flat.size, _BLOCK)]
    counts = np.zeros(len(values), np.int64)
    for block in indices:
        counts += np.bincount(flat[block].astype(np.int64) - values[0], minlength=len(values))
    table = rule(values, counts)
    levels = np.empty(flat.size, np.uint8)
    for block in indices:
        levels[block] = table[flat[block].astype(np.int64) - values[0]]
    return levels


def to_uint8(values: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """Windows an image of more than 8 bits: its percentiles 0.5 and 99.5 become 0 and 255.

    Where the two percentiles are equal, the extremes take their place; equal extremes give zeros.

    Args:
      values: any shape, integer or float, in any unit.
      counts: of a table `[n]`, how many pixels have each value; None for one each.

    Returns:
      Same shape, uint8.

    Raises:
      BadEntryError: a value is not finite.
    """
    used = values if counts is None else values[counts > 0]
    check_finite(used)
    low, high = np.percentile(values, _PERCENTILES) if counts is None else _ranked(values, counts)
    if low == high:
        low, high = float(used.min()), float(used.max())
    if low == high:
        return np.zeros(values.shape, np.uint8)
    return stretch(values, low, high)


def _ranked(values: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """The two percentiles of a table, between ranks in a straight line, as `np.percentile`."""
    order = np.argsort(values, kind="stable")
    last = np.cumsum(counts[order])
    ranks = np.array(_PERCENTILES) / 100 * (last[-1] - 1)
    below, above = (
        values[order[np.searchsorted(last, at, side="right")]].astype(np.float64)
        for at in (np.floor(ranks), np.ceil(ranks))
    )
    low, high = (below + (ranks % 1) * (above - below)).tolist()
    return low, high


def resample(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resamples to another size, each pixel the mean of what it covers; of a mask the majority.

    Args:
      pixels: `[H, W]` uint8 or bool, or `[H, W, C]` uint8.
      size: height and width in pixels.

    Returns:
      `[*size]` or `[*size, C]`, same dtype.
    """
    if pixels.shape[:2] == size:
        return pixels
    image = Image.fromarray(pixels * np.uint8(255) if pixels.dtype == bool else pixels)
    resized = np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR))
    return resized > 127 if pixels.dtype == bool else resized


def pad(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Puts `[H, W, ...]` amid black, of a mask False, of the given height and width."""
    (height, width), (tall, wide) = pixels.shape[:2], size
    top, left = (tall - height) // 2, (wide - width) // 2
    padded = np.zeros((*size, *pixels.shape[2:]), pixels.dtype)
    padded[top : top + height, left : left + width] = pixels
    return padded


def shrink(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Averages blocks of `factor` x `factor` pixels; of a mask, takes the majority (half is True).

    Args:
      pixels: `[H, W]` uint8 or bool, or `[H, W, C]` uint8; both sides are multiples of `factor`.
      factor: side of a block in pixels.

    Returns:
      `[H / factor, W / factor]`, or with C, same dtype.
    """
    if factor == 1:
        return pixels
    # Not Pillow's `reduce`: it rounds off so much that a mask's tie may fall to either side.
    height, *width_and_channels = pixels.shape
    rows = pixels.reshape(height // factor, factor, *width_and_channels)
    rows = rows.sum(axis=1, dtype=np.uint32)
    total = functools.reduce(np.add, (rows[:, i::factor] for i in range(factor)))
    n = factor**2
    if pixels.dtype == bool:
        return 2 * total >= n
    return ((2 * total + n) // (2 * n)).astype(np.uint8)
