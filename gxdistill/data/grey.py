"""Grey pixels of any origin: checks, levels of 8 bits, smaller images."""

import functools

import numpy as np

MAX_PIXELS = 1 << 26  # 8192 x 8192; a header that claims more is taken for a decompression bomb.
_PERCENTILES = (0.5, 99.5)


class BadEntryError(Exception):
    """An entry of a cohort that cannot be used; the message is the reason, for people to read."""


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


def to_uint8(values: np.ndarray) -> np.ndarray:
    """Windows an image of more than 8 bits: its percentiles 0.5 and 99.5 become 0 and 255.

    Where the two percentiles are equal, the extremes take their place; equal extremes give zeros.

    Args:
      values: `[H, W]`, integer or float, in any unit.

    Returns:
      Pixels, `[H, W]` uint8.

    Raises:
      BadEntryError: a value is not finite.
    """
    check_finite(values)
    low, high = np.percentile(values, _PERCENTILES)
    if low == high:
        low, high = float(values.min()), float(values.max())
    if low == high:
        return np.zeros(values.shape, np.uint8)
    return stretch(values, low, high)


def shrink(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Averages blocks of `factor` x `factor` pixels; of a mask, takes the majority (half is True).

    Args:
      pixels: `[H, W]` uint8 or bool; both sides are multiples of `factor`.
      factor: side of a block in pixels.

    Returns:
      `[H / factor, W / factor]`, same dtype.
    """
    # Not Pillow's `reduce`: it rounds off so much that a mask's tie may fall to either side.
    height, width = pixels.shape
    rows = pixels.reshape(height // factor, factor, width).sum(axis=1, dtype=np.uint32)
    total = functools.reduce(np.add, (rows[:, i::factor] for i in range(factor)))
    n = factor**2
    if pixels.dtype == bool:
        return 2 * total >= n
    return ((2 * total + n) // (2 * n)).astype(np.uint8)
