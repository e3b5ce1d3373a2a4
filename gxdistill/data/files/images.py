"""Decodes one file: an image as 8-bit grey, a mask as True and False, or a reason why not."""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, TiffImagePlugin, UnidentifiedImageError

from gxdistill.data.files import dicom
from gxdistill.data.files.grey import (
    MAX_PIXELS,
    BadEntryError,
    Header,
    Picture,
    check_pixel_count,
    map_values,
    of_labels,
    to_uint8,
)

_FORMATS = ("PNG", "JPEG", "TIFF")
_DICOM_SUFFIXES = (".dcm", ".dicom")


def read_header(path: Path) -> Header:
    """Reads the size of an image, and the spacing of its pixels if it is DICOM.

    Raises:
      BadEntryError: there is no such file, or it is no image of a known kind and sane size.
      UserError: the file is DICOM and pydicom is not installed.
    """
    if _is_dicom(path):
        return dicom.read_header(path)
    with _opened(path) as image:
        return Header((image.height, image.width))


def read_image(path: Path, window: str = "file") -> Picture:
    """Decodes a PNG, JPEG, TIFF or DICOM file to 8-bit grey.

    Eight bits are kept as they are. More are windowed linearly by `to_uint8`, DICOM by its own
    rule (`dicom.read_image`). A colour file is accepted where all its pixels are grey.

    Args:
      path: of the file; its bytes tell its kind, not its name.
      window: "file", or "percentiles" where a DICOM file's own window is to be passed over.

    Returns:
      The picture.

    Raises:
      BadEntryError: the file is missing, empty, damaged, truncated, coloured, transparent, not a
        single image or holds a number that is not finite.
      UserError: the file is DICOM and pydicom is not installed.
    """
    if _is_dicom(path):
        return dicom.read_image(path, window)
    with _opened(path) as image:
        if image.mode in ("1", "L"):
            return Picture(np.array(image.convert("L")))
        if image.mode == "F" or image.mode.startswith("I"):
            stored = np.asarray(image)
            pixels = map_values(stored, to_uint8)
            # Pillow turns "white is zero" (TIFF tag 262) round for 8 bits, not for more.
            white_is_zero = (
                isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(262) == 0
            )
            bits = 16 if ";16" in image.mode else 32
            return Picture(255 - pixels if white_is_zero else pixels, bits, "percentiles")
        return Picture(_grey_of_colour(image))


def read_mask(path: Path, organ: Sequence[int] = ()) -> np.ndarray:
    """Decodes an organ mask or label map: True where a pixel is above 0, in a JPEG above 127.

    Args:
      path: of a PNG, JPEG, TIFF or DICOM file: bits, numbers of labels, or colours on black.
      organ: the labels that are the organ, of a palette its indices; none stands for all above 0.

    Returns:
      The mask, `[H, W]` bool.

    Raises:
      BadEntryError: the file is missing, empty, damaged, truncated or not a single image, or holds
        no labels to choose from.
      UserError: the file is DICOM and pydicom is not installed.
    """
    if _is_dicom(path):
        return dicom.read_mask(path, organ)
    with _opened(path) as image:
        least = 128 if image.format == "JPEG" else 1  # Its edges ring: above 0 is not yet organ.
        colours = len(image.getbands()) > 1
        if organ and (colours or least > 1):
            raise BadEntryError("colours or JPEG; labels to choose from need a grey PNG or TIFF")
        if colours or (image.mode == "P" and not organ):
            return np.asarray(image.convert("RGB")).max(axis=-1) >= least
        values = np.asarray(image)
        return of_labels(values, organ) if least == 1 else values >= least


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


def _grey_of_colour(image: Image.Image) -> np.ndarray:
    mode = "RGBA" if image.has_transparency_data else "RGB"
    red, green, blue, *opacity = image.convert(mode).split()
    if opacity and opacity[0].getextrema() != (255, 255):
        raise BadEntryError("transparent pixels; an opaque grey image is expected")
    if any(ImageChops.difference(red, other).getbbox() for other in (green, blue)):
        raise BadEntryError("colour image; a grey one is expected")
    return np.array(red)
