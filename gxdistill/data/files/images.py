"""Decodes one file: an image as 8-bit grey, a mask as True and False, or a reason why not."""

import contextlib
import functools
import logging
import os
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from gxdistill.data.files import dicom, label_maps, raster
from gxdistill.data.files.grey import (
    BadEntryError,
    Header,
    Picture,
    guarded,
    map_values,
    to_uint8,
)
from gxdistill.data.files.raster import Raster

_MOST_NAMES = 100_000  # Of a folder in which a missing file is looked for.
_DICOM_SUFFIXES = (".dcm", ".dicom")


def read_header(path: Path) -> Header:
    """Reads the size of an image, and the spacing of its pixels if it is DICOM.

    Raises:
      BadEntryError: there is no such file, or it is no image of a known kind and sane size.
      UserError: the file is DICOM and pydicom is not installed.
    """
    if _is_dicom(path):
        return dicom.read_header(path)
    return Header(raster.read_size(path))


def read_image(path: Path, window: str = "file", *, colour: bool = False) -> Picture:
    """Decodes a PNG, JPEG, TIFF or DICOM file to 8-bit grey, or to colours, upright.

    Eight bits are kept as they are. More are windowed linearly by `to_uint8`, DICOM by its own
    rule (`dicom.read_image`). As grey, a colour file is accepted where all its pixels are grey; as
    colours, a grey file is one whose three channels are alike.

    Args:
      path: of the file; its bytes tell its kind, not its name.
      window: "file", or "percentiles" where a DICOM file's own window is to be passed over.
      colour: reads red, green and blue of 8 bits each; DICOM is not read so.

    Returns:
      The picture.

    Raises:
      BadEntryError: the file is missing, empty, damaged, truncated, coloured, transparent, not a
        single image, holds a number that is not finite, or stores its pixels in a way not read.
      UserError: the file is DICOM and pydicom is not installed.
    """
    if _is_dicom(path):
        if colour:
            raise BadEntryError("DICOM, which is not read in colours; save it as PNG or TIFF")
        return dicom.read_image(path, window)
    with guarded("damaged or truncated"):
        image = raster.read_raster(path)
        if image.alpha is not None:
            raise BadEntryError("transparent pixels; an opaque grey image is expected")
        if colour:
            return Picture(_colours(image), turned=image.turned)
        values = _grey_of_colour(image)
        if values.dtype == bool:
            values = values * np.uint8(255)
        if values.dtype == np.uint8:
            return Picture(values, turned=image.turned)
        pixels = map_values(values, to_uint8)
        # Pillow turns "white is zero" (TIFF tag 262) round for 8 bits, not for more.
        if image.layout.white_is_zero:
            pixels = 255 - pixels
        bits = 8 * values.dtype.itemsize
        return Picture(pixels, bits, "percentiles", turned=image.turned)


def read_place(path: Path) -> tuple[str, float]:
    """Reads whose slice a file holds, and its number among them: "" and 0 where it does not say.

    Raises:
      BadEntryError: it is DICOM, and damaged.
      UserError: it is DICOM, and pydicom is not installed.
    """
    return dicom.read_place(path) if _is_dicom(path) else ("", 0.0)


def read_mask(path: Path, organ: Sequence[int] = ()) -> np.ndarray:
    """Decodes an organ mask or label map, upright, by the rules of `label_maps`.

    Args:
      path: of a PNG, JPEG, TIFF or DICOM file: two values, numbers of labels, or two colours.
      organ: the labels that are the organ, of a palette its indices; none stands for the other of
        two values of which one is 0 or black.

    Returns:
      The mask, `[H, W]` bool.

    Raises:
      BadEntryError: the file is missing, empty, damaged, truncated or not a single image, or it
        does not say without doubt where the organ is.
      UserError: the file is DICOM and pydicom is not installed.
    """
    if _is_dicom(path):
        return dicom.read_mask(path, organ)
    with guarded("damaged or truncated"):
        return label_maps.organ_of(raster.read_raster(path), organ)


def read_labels(path: Path, numbers: Sequence[int]) -> np.ndarray:
    """Decodes a map of several labels, upright.

    Args:
      path: of a PNG or TIFF file.
      numbers: that stand for class 1, 2 and so on, of a palette its indices; 0 is class 0.

    Returns:
      The class of each pixel, `[H, W]` uint8.

    Raises:
      BadEntryError: as `read_mask`, or the file is DICOM or holds another number.
    """
    if _is_dicom(path):
        raise BadEntryError("DICOM, whose labels are not told apart; save a grey PNG or TIFF")
    with guarded("damaged or truncated"):
        return label_maps.classes_of(raster.read_raster(path), numbers)


def is_turned(path: Path) -> bool:
    """Whether a file bears an EXIF orientation other than upright; a DICOM file never does.

    Raises:
      BadEntryError: there is no such file, or it is no image of a known kind and sane size.
    """
    return not _is_dicom(path) and raster.is_turned(path)


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
            raise BadEntryError(f"file missing{_near(path)}")
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


def _near(path: Path) -> str:
    """Names the file that was likely meant: of other case, blanks, accents or ending."""
    folder = path.parent
    if path.exists() or not folder.is_dir():
        return "" if path.exists() else f": there is no folder {folder.name!r} for it"
    names = _names_in(folder, folder.stat().st_mtime_ns)
    for key, difference in ((_folded(path.name), "its name"), (_folded(path.stem), "its ending")):
        if key in names:
            return f"; there is {names[key]!r}, {difference} differs"
    return ""


@functools.lru_cache(maxsize=8)
def _names_in(folder: Path, _: int) -> dict[str, str]:
    """The names of a folder, by how they are spelt in lower case, with and without ending."""
    listed = sorted(os.listdir(folder))[:_MOST_NAMES]
    return {_folded(Path(name).stem): name for name in listed} | {_folded(n): n for n in listed}


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold().strip()


def _colours(image: Raster) -> np.ndarray:
    """Returns the colours of a raster, `[H, W, 3]` uint8."""
    values = _of_palette(image)
    if values.dtype == bool:
        values = values * np.uint8(255)
    if values.dtype != np.uint8:
        raise BadEntryError("colours of more than 8 bits; save it with 8")
    return values if values.ndim == 3 else np.repeat(values[..., None], 3, axis=-1)


def _of_palette(image: Raster) -> np.ndarray:
    """Returns the numbers of a raster, or the colours that they are indices of."""
    if image.palette is None:
        return image.values
    if int(image.values.max()) >= len(image.palette):
        raise BadEntryError("damaged (an index beyond its palette)")
    return image.palette[image.values]


def _grey_of_colour(image: Raster) -> np.ndarray:
    """Returns the grey levels of a raster; of colours, where all are grey."""
    values = _of_palette(image)
    if values.ndim == 2:
        return values
    red = values[..., 0]
    if any((red != values[..., i]).any() for i in range(1, values.shape[2])):
        raise BadEntryError("colour image; a grey one is expected")
    return np.ascontiguousarray(red)
