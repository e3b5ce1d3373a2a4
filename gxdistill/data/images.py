"""Decodes one file: an image as 8-bit grey, a mask as True and False, or a reason why not."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from gxdistill.data import dicom
from gxdistill.data.grey import MAX_PIXELS, BadEntryError, check_pixel_count, to_uint8

_FORMATS = ("PNG", "JPEG", "TIFF")
_DICOM_SUFFIXES = (".dcm", ".dicom")


def read_size(path: Path) -> tuple[int, int]:
    """Reads the height and width of an image in pixels from its header.

    Raises:
      BadEntryError: there is no such file, or it is no image of a known kind and sane size.
      UserError: the file is DICOM and pydicom is not installed.
    """
    if _is_dicom(path):
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
