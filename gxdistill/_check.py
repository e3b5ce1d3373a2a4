"""Border checks: static arguments, once, in plain Python, with value, reason and way out."""

from collections.abc import Sequence
from typing import Any


def positive(**values: float) -> None:
    """Refuses values that are not above zero.

    Args:
      **values: numbers by the name under which the caller knows them.

    Raises:
      ValueError: a value is zero, negative or not a number.
    """
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"`{name}` is {value}; it must be greater than 0.")


def share(**values: float) -> None:
    """Refuses values outside the closed interval from 0 to 1.

    Raises:
      ValueError: a value lies outside, or is not a number.
    """
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise ValueError(f"`{name}` is {value}; it must lie between 0 and 1.")


def one_of(name: str, value: Any, choices: Sequence[Any]) -> None:
    """Refuses a value that is not among `choices`.

    Raises:
      ValueError: `value` is none of them.
    """
    if value not in choices:
        known = ", ".join(map(repr, choices))
        raise ValueError(f"`{name}` is {value!r}; it must be one of {known}.")


def patch_fits(shape: Sequence[int], size: int) -> None:
    """Refuses a patch larger than its image.

    Args:
      shape: of the image, height and width first, in pixels.
      size: side of the patch in pixels.

    Raises:
      ValueError: the patch is larger than a side of the image.
    """
    height, width = shape[:2]
    if size > height or size > width:
        raise ValueError(
            f"A {size}x{size} patch does not fit in an image of {height}x{width} pixels. "
            f"Pass a smaller `size`, or pad the image first."
        )
