"""Decodes a PNG, JPEG or TIFF file to the numbers it stores, upright, and loses none of them."""

import contextlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from gxdistill.data.files import formats
from gxdistill.data.files.formats import Layout
from gxdistill.data.files.grey import MAX_PIXELS, BadEntryError, check_pixel_count

_FORMATS = ("PNG", "JPEG", "TIFF")
_ORIENTATION = 0x0112  # EXIF's tag.
_FOREIGN = "B" if sys.byteorder == "little" else "L"
# Pillow keeps the high byte of 16-bit colours; asked for the other order of bytes, the low one.
_OTHER_ORDER = {"B": "L", "L": "B", "N": _FOREIGN}
# What libtiff unpacks has this machine's order of bytes already, and Pillow turns it once more.
_UNPACKED = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "F;32BF": "F;32NF"}


class Raster(NamedTuple):
    """The decoded numbers of a file.

    Attributes:
      values: `[H, W]` grey levels, bits or indices of the palette, or `[H, W, 3]` colours, in the
        dtype of their depth: bool, uint8, int8, uint16, int32, uint32 or float32.
      alpha: `[H, W]` opacity, True where a pixel is opaque and nothing between; None where all are.
      half_clear: whether a pixel is neither opaque nor transparent.
      palette: `[n, 3]` uint8 colours of the indices; None where there is none.
      layout: how the file stores them.
      turned: whether an orientation was applied.
    """

    values: np.ndarray
    alpha: np.ndarray | None
    half_clear: bool
    palette: np.ndarray | None
    layout: Layout
    turned: bool


def read_size(path: Path) -> tuple[int, int]:
    """Reads height and width of the upright image in pixels.

    Raises:
      BadEntryError: it is no image of a known kind and sane size.
    """
    with _opened(path) as (image, layout):
        size = image.height, image.width
        return size[::-1] if _orientation(image, layout) > 4 else size


def is_turned(path: Path) -> bool:
    """Whether a file bears an orientation other than upright.

    Raises:
      BadEntryError: it is no image of a known kind and sane size.
    """
    with _opened(path) as (image, layout):
        return _tagged(image, layout) > 1


def read_raster(path: Path) -> Raster:
    """Decodes a file.

    Args:
      path: of a PNG, JPEG or TIFF file.

    Returns:
      Its numbers.

    Raises:
      BadEntryError: the file is damaged, truncated, not a single image, or stores its pixels in a
        way that is not read.
    """
    with _opened(path) as (image, layout):
        turned = _tagged(image, layout) > 1
        orientation = _orientation(image, layout)
        if layout.bits == 16 and layout.samples > 1:
            values = _wide_colours(_unturned(path, layout), image)
        else:
            values = _numbers(image, layout)
        palette = None
        if image.mode in ("P", "PA"):
            palette = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
        values, opacity = _without_alpha(values, image, layout)
    values = _upright(values, orientation)
    if opacity is None:
        return Raster(values, None, False, palette, layout, turned)
    opacity = _upright(opacity, orientation)
    opaque = opacity == (True if opacity.dtype == bool else np.iinfo(opacity.dtype).max)
    half_clear = bool((~opaque & (opacity > 0)).any())
    return Raster(values, None if opaque.all() else opaque, half_clear, palette, layout, turned)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[ImageFile.ImageFile, Layout]]:
    layout = formats.read_layout(path)
    try:
        with Image.open(_unturned(path, layout), formats=_FORMATS) as image:
            check_pixel_count(image.height, image.width)
            if getattr(image, "n_frames", 1) > 1:
                raise BadEntryError("several images in one file")
            image.tile = [_unpacked(tile) for tile in image.tile]
            yield image, layout
    except BadEntryError:
        raise
    except UnidentifiedImageError as error:
        raise BadEntryError(f"{layout}, damaged or of a kind that is not read") from error
    except Image.DecompressionBombError as error:
        raise BadEntryError(f"header claims far more than {MAX_PIXELS} pixels") from error
    except MemoryError as error:
        raise BadEntryError(f"{layout}, which asks for more memory than there is") from error
    except Exception as error:  # Damaged bytes make Pillow raise nearly anything.
        raise BadEntryError(f"damaged or truncated ({type(error).__name__})") from error


def _unpacked(tile: Any) -> Any:
    if tile.codec_name != "libtiff":
        return tile
    return tile._replace(args=(_UNPACKED.get(tile.args[0], tile.args[0]), *tile.args[1:]))


def _unturned(path: Path, layout: Layout) -> Path | io.BytesIO:
    """A TIFF that says that it is upright: some that are not Pillow turns before it reads them."""
    at, number = layout.upright
    if not at:
        return path
    content = bytearray(path.read_bytes())
    content[at : at + len(number)] = number
    return io.BytesIO(content)


def _tagged(image: Image.Image, layout: Layout) -> int:
    """The orientation that a file bears, from 1, which is upright, to 8."""
    orientation = layout.orientation
    if layout.turned and not orientation:
        orientation = image.getexif().get(_ORIENTATION, 1)
    if orientation not in range(9):
        raise BadEntryError("orientation that is none of 1 to 8")
    return int(orientation) or 1  # Cameras write 0 for "not known".


def _orientation(image: Image.Image, layout: Layout) -> int:
    """The orientation that is left to apply: one that only the XMP of a TIFF has Pillow applies."""
    if layout.kind == "TIFF" and not layout.upright[0]:
        return 1
    return _tagged(image, layout)


def _upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """Turns pixels as EXIF 2.32, 4.6.4.A, tag Orientation, says."""
    if orientation in (3, 4, 6, 7):
        values = values[::-1]
    if orientation in (2, 3, 7, 8):
        values = values[:, ::-1]
    if orientation > 4:
        values = np.swapaxes(values, 0, 1)
    return np.ascontiguousarray(values)


def _numbers(image: Image.Image, layout: Layout) -> np.ndarray:
    mode = image.mode
    if mode in ("YCbCr", "RGBX"):
        image = image.convert("RGB")
    elif mode in ("La", "RGBa"):
        image = image.convert(mode.upper())
    elif mode not in ("1", "L", "P", "I", "F", "LA", "PA", "RGB", "RGBA") and ";16" not in mode:
        raise BadEntryError(f"colours of the kind {mode}; a grey image is expected")
    values = np.asarray(image)
    if layout.kind == "TIFF" and values.dtype == np.int32 and layout.numbers == "unsigned":
        return values.view(np.uint32)  # Pillow takes what is beyond 2^31 for negative.
    if layout.bits == 8 and layout.numbers == "signed":
        return values.view(np.int8)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _wide_colours(file: Path | io.BytesIO, image: ImageFile.ImageFile) -> np.ndarray:
    """Decodes `[H, W, C]` uint16: the high bytes, and in a second pass the low ones."""
    if image.format == "PNG" and image.tile[0].args == "LA;16B":
        # Grey and opacity have as many bytes as four channels of eight bits.
        image.tile = [tile._replace(args="RGBA") for tile in image.tile]
        quartets = np.asarray(image).astype(np.uint16)
        return quartets[..., 0::2] << 8 | quartets[..., 1::2]
    with Image.open(file, formats=_FORMATS) as again:
        again.tile = [tile._replace(args=_swapped(tile.args)) for tile in again.tile]
        low = np.asarray(again)
        return np.asarray(image).astype(np.uint16) << 8 | low


def _swapped(args: tuple | str | None) -> tuple | str:
    if not isinstance(args, str):
        assert args
        return (_swapped(args[0]), *args[1:])
    name, _, order = args.partition(";16")
    return f"{name};16{_OTHER_ORDER[order]}"


def _without_alpha(
    values: np.ndarray, image: Image.Image, layout: Layout
) -> tuple[np.ndarray, np.ndarray | None]:
    """Parts the numbers from their opacity, which may be a channel, or a key in a PNG."""
    if values.ndim == 3 and values.shape[2] in (2, 4):
        colours = values[..., 0] if values.shape[2] == 2 else values[..., :3]
        return colours, values[..., -1]
    key = image.info.get("transparency")
    if key is None:
        return values, None
    if isinstance(key, bytes):
        table = np.full(256, 255, np.uint8)
        table[: len(key)] = np.frombuffer(key[:256], np.uint8)
        return values, table[values]
    if values.ndim == 3:
        return values, (values != np.array(key, np.int64)).any(axis=-1)
    if image.mode == "L":  # Pillow spreads 2 and 4 bits over 8, and leaves the key as it is.
        key *= 255 // (2**layout.bits - 1)
    return values, values != key
