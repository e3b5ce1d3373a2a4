"""How the distilled images lie in a file: as float32, rounded, or as codes of 8 or 4 bits.

A code c of an image stands for offset + scale * c, computed in float32, each operation rounded.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

LEVELS = {"uint8": 256, "uint4": 16}
PRECISIONS = ("float32", "bfloat16", *LEVELS)
_BLOCK = 1 << 20  # Pixels that are decoded at once.


class CodeGrid(NamedTuple):
    """The values that the pixels of each image may have: offset + scale * code.

    Attributes:
      scale: `[S, B]` float32, above 0.
      offset: `[S, B]` float32.
    """

    scale: np.ndarray
    offset: np.ndarray


def spanning(images: np.ndarray, precision: str) -> CodeGrid:
    """Makes the grid that reaches from each image's lowest value to its highest.

    Args:
      images: `[S, B, H, W, C]` float32.
      precision: one of `LEVELS`.
    """
    low, high = images.min((2, 3, 4)), images.max((2, 3, 4))
    scale = (high - low) / np.float32(LEVELS[precision] - 1)
    return CodeGrid(np.where(scale > 0, scale, np.float32(1)), low)


def _wide(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, np.float32)[..., None, None, None]


def _decoded(codes: np.ndarray, grid: CodeGrid) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):  # a stranger's may have any scale
        return _wide(grid.offset) + _wide(grid.scale) * codes.astype(np.float32)


def _codes(images: np.ndarray, precision: str, grid: CodeGrid) -> np.ndarray:
    codes = np.rint((images - _wide(grid.offset)) / _wide(grid.scale))
    return np.clip(codes, 0, LEVELS[precision] - 1).astype(np.uint8)


def round_to(images: np.ndarray, precision: str, grid: CodeGrid | None) -> np.ndarray:
    """Rounds images to what `precision` can hold, of codes to the nearest on the grid."""
    if grid is not None:
        return _decoded(_codes(images, precision, grid), grid)
    return np.asarray(images).astype(jnp.dtype(precision)).astype(np.float32)


def rounded(images: np.ndarray, precision: str) -> tuple[np.ndarray, CodeGrid | None]:
    """Rounds images to what `precision` can hold, on a grid of their own where that is codes."""
    grid = spanning(images, precision) if precision in LEVELS else None
    return round_to(images, precision, grid), grid


def forms(precision: str, shape: tuple[int, ...]) -> dict[str, tuple[tuple[int, ...], str]]:
    """Returns shape and dtype of the arrays that hold images `[S, B, H, W, C]`."""
    if precision not in LEVELS:
        return {"images": (shape, precision)}
    pixels = int(np.prod(shape[2:], dtype=np.int64))
    codes = shape if precision == "uint8" else (*shape[:2], -(-pixels // 2))
    return {
        "images": (codes, "uint8"),
        "scale": (shape[:2], "float32"),
        "offset": (shape[:2], "float32"),
    }


def encode(images: np.ndarray, precision: str, grid: CodeGrid | None) -> dict[str, np.ndarray]:
    """Returns the arrays that hold images in a file.

    Args:
      images: `[S, B, H, W, C]` float32, from `round_to`.
      precision: one of `PRECISIONS`.
      grid: of codes, None without.

    Raises:
      ValueError: a grid is missing or one too many, or an image is not as `round_to` makes it.
    """
    if (grid is not None) != (precision in LEVELS):
        raise ValueError(f"Images in {precision} and the grid {grid} do not fit each other.")
    if not np.array_equal(round_to(images, precision, grid), images, equal_nan=True):
        raise ValueError(f"The images are not such as {precision} can hold. Round them first.")
    if grid is None:
        return {"images": images.astype(jnp.dtype(precision))}
    codes = _codes(images, precision, grid)
    if precision == "uint4":
        flat = codes.reshape(*codes.shape[:2], -1)
        even = np.pad(flat, ((0, 0), (0, 0), (0, flat.shape[-1] % 2)))
        codes = even[..., ::2] | even[..., 1::2] << 4
    return {"images": codes, "scale": grid.scale, "offset": grid.offset}


def decode(
    arrays: Mapping[str, Any], precision: str, shape: tuple[int, ...]
) -> tuple[np.ndarray, CodeGrid | None]:
    """Returns images and grid as `encode` was given them.

    Args:
      arrays: of the `forms` of this precision and shape.
      precision: one of `PRECISIONS`.
      shape: of the images.
    """
    images, at = np.empty(shape, np.float32), 0
    flat = images.reshape(-1, *shape[2:])
    for block in decoded_blocks(arrays, precision, shape):
        flat[at : at + len(block)] = block
        at += len(block)
    coded = precision in LEVELS
    return images, CodeGrid(arrays["scale"], arrays["offset"]) if coded else None


def decoded_blocks(
    arrays: Mapping[str, Any], precision: str, shape: tuple[int, ...]
) -> Iterator[np.ndarray]:
    """Decodes images a few at a time: of codes, all together take up to 26 times their file.

    Args:
      arrays: see `decode`.
      precision: likewise.
      shape: likewise.

    Yields:
      Images `[some, H, W, C]` float32, in order.
    """
    stored = np.asarray(arrays["images"])
    stored = stored.reshape(shape[0] * shape[1], *stored.shape[2:])
    pixels = math.prod(shape[2:])
    some = max(1, _BLOCK // pixels)
    for begin in range(0, len(stored), some):
        images = stored[begin : begin + some]
        if precision not in LEVELS:
            yield images.astype(np.float32)
            continue
        if precision == "uint4":
            pairs = np.stack([images & 15, images >> 4], axis=-1).reshape(len(images), -1)
            images = pairs[:, :pixels].reshape(len(images), *shape[2:])
        grid = (arrays[name].reshape(-1)[begin : begin + some] for name in CodeGrid._fields)
        yield _decoded(images, CodeGrid(*grid))
