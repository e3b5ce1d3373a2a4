"""Decodes one file: an image as 8-bit grey, a mask as True and False, or a reason why not."""

import contextlib
import functools
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

MAX_PIXELS = 1 << 26  # 8192 x 8192; a header that claims more is taken for a decompression bomb.
_FORMATS = ("PNG", "JPEG", "TIFF")
_DICOM_SUFFIXES = (".dcm", ".dicom")
_PERCENTILES = (0.5, 99.5)


class BadEntryError(Exception):
    """An entry of a cohort that cannot be used; the message is the reason, for people to read."""


def read_size(path: Path) -> tuple[int, int]:
    """Reads the height and width of an image in pixels from its header.

    Raises:
      BadEntryError: there is no such file, or it is no image of a known kind and sane size.
      UserError: the file is DICOM and pydicom is not installed.
    """
    if _is_dicom(path):
        from gxdistill.data import dicom

        return dicom.read_size(path)
    with _opened(path) as image:
        return image.height, image.width


def read_image(path: Path) -> np.ndarray:
    """Decodes a PNG, JPEG, TIFF or DICOM file to 8-bit grey.

    Eight bits are kept as they are. More are windowed linearly by `to_uint8`, DICOM by its own
    rule (`dicom.read_image`). A colour file is accepted where all its pixels are grey.

    Args:
      path: of the file; its bytes tell its kind, not its name.

    Returns:
      Pixels, `[H, W]` uint8, black is 0.

    Raises:
      BadEntryError: the file is missing, empty, damaged, truncated, coloured, transparent, not a
        single image or holds a number that is not finite.
      UserError: the file is DICOM and pydicom is not installed.
    """
    if _is_dicom(path):
        from gxdistill.data import dicom

        return dicom.read_image(path)
    with _opened(path) as image:
        if image.mode in ("1", "L"):
            return np.array(image.convert("L"))
        if image.mode == "F" or image.mode.startswith("I"):
            pixels = to_uint8(np.asarray(image))
            # Pillow turns "white is zero" (TIFF tag 262) round for 8 bits, not for more.
            white_is_zero = (
                isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(262) == 0
            )
            return 255 - pixels if white_is_zero else pixels
        return _grey_of_colour(np.asarray(image.convert("RGBA")))


def read_mask(path: Path) -> np.ndarray:
    """Decodes an organ mask: True where a pixel is above 0, in a JPEG above 127.

    Args:
      path: of a PNG, JPEG or TIFF file: bits, numbers of labels, or colours on black.

    Returns:
      The mask, `[H, W]` bool.

    Raises:
      BadEntryError: the file is missing, empty, damaged, truncated or not a single image.
    """
    if _is_dicom(path):
        raise BadEntryError("DICOM file; a PNG or TIFF is expected")
    with _opened(path) as image:
        bands = image.convert("RGB") if image.mode == "P" or len(image.getbands()) > 1 else image
        values = np.asarray(bands)
        lossy = image.format not in ("PNG", "TIFF")  # Its edges ring: above 0 is not yet organ.
    return (values if values.ndim == 2 else values.max(axis=-1)) > (127 if lossy else 0)


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


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences decoders within: they quote headers, and a bad file has its reason anyhow."""
    logger = logging.getLogger("pydicom")
    before, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


def _is_dicom(path: Path) -> bool:
    try:
        if not path.is_file():
            raise BadEntryError("file missing")
        with path.open("rb") as file:
            head = file.read(132)
    except OSError as error:
        raise BadEntryError(f"file cannot be opened ({type(error).__name__})") from error
    if not head:
        raise BadEntryError("file empty")
    if head[128:] == b"DICM":
        return True
    if path.suffix.lower() in _DICOM_SUFFIXES:
        raise BadEntryError("not a DICOM file: the mark DICM is missing")
    return False


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path, formats=_FORMATS) as image:
            check_pixel_count(image.height, image.width)
            if getattr(image, "n_frames", 1) > 1:
                raise BadEntryError("several images in one file")
            yield image
    except BadEntryError:
        raise
    except UnidentifiedImageError as error:
        raise BadEntryError("not a readable PNG, JPEG, TIFF or DICOM file") from error
    except Image.DecompressionBombError as error:
        raise BadEntryError(f"header claims far more than {MAX_PIXELS} pixels") from error
    except Exception as error:  # Damaged bytes make Pillow raise nearly anything.
        raise BadEntryError(f"damaged or truncated ({type(error).__name__})") from error


def _grey_of_colour(bands: np.ndarray) -> np.ndarray:
    if (bands[..., 3] != 255).any():
        raise BadEntryError("transparent pixels; an opaque grey image is expected")
    if (bands[..., :3] != bands[..., :1]).any():
        raise BadEntryError("colour image; a grey one is expected")
    return bands[..., 0].copy()
