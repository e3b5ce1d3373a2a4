"""Decodes a DICOM file to grey pixels. Nothing else of the file leaves this module.

A header holds names, dates and places of patients: labels and patient ids come from the manifest,
and no message here repeats a header's text, not even a decoder's own.
"""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gxdistill.data.files import (
    dicom_header,
    dicom_pixels,
    dicom_segments,
    grey,
    label_maps,
)
from gxdistill.data.files.dicom_header import Window
from gxdistill.data.files.grey import BadEntryError, Header, Picture
from gxdistill.errors import UserError

if TYPE_CHECKING:
    from pydicom import Dataset

_MAX_BYTES = 1 << 28  # Of a file, and of what one unpacks to, of which pydicom makes two copies.
_DAMAGED = "DICOM pixels damaged or truncated"


def read_header(path: Path) -> Header:
    """Reads the size and spacing of a DICOM image.

    Raises:
      BadEntryError: the header is damaged, or tells of no single grey image of sane size.
      UserError: pydicom is not installed.
    """
    with grey.guarded("DICOM header damaged"):
        dataset = _open(path, stop_before_pixels=True)
        return Header(_single_grey_size(dataset), dicom_header.spacing(dataset))


def read_image(path: Path, window: str = "file") -> Picture:
    """Decodes the pixels of a DICOM file to 8-bit grey, in the order of PS3.4 N.2.

    Modality LUT or rescale; then the VOI LUT, or else the first valid window, or else, for more
    than 8 bits, the percentiles of `grey.to_uint8`; then MONOCHROME1 is inverted, so that black is
    0. Padding is black, and no percentile counts it.

    Args:
      path: of a DICOM file.
      window: "file" as above; "percentiles" passes over the file's VOI LUT and windows.

    Returns:
      The picture.

    Raises:
      BadEntryError: the file is damaged or truncated, is no single grey image, or is coded in a way
        that is not read.
      UserError: pydicom is not installed.
    """
    with grey.guarded(_DAMAGED):
        dataset = _open(path)
        _single_grey_size(dataset)
        if dicom_segments.is_segmentation(dataset):
            raise BadEntryError("a DICOM segmentation, which is a mask and no image")
        stored = dicom_pixels.decode(dataset, path)
        rule = _Rendering(dataset, window, stored)
        pixels = grey.map_values(stored.values, rule, stored.ignored)
        if dicom_header.code(dataset, "PhotometricInterpretation") == "MONOCHROME1":
            pixels = 255 - pixels
        if stored.ignored is not None:
            pixels[stored.ignored] = 0
        return Picture(
            pixels,
            bits=stored.bits,
            window=rule.name,
            spacing=dicom_header.spacing(dataset),
            says_text=dicom_header.code(dataset, "BurnedInAnnotation") == "YES",
        )


def read_mask(path: Path, organ: Sequence[int] = ()) -> np.ndarray:
    """Reads a label map: a DICOM segmentation, or the values of a single grey image.

    Args:
      path: of a DICOM file.
      organ: numbers of segments, or values, that are the organ; none stands for all segments, or
        for the other of two values of which one is 0.

    Returns:
      The mask, `[H, W]` bool.

    Raises:
      BadEntryError: the file is damaged, a segmentation of several slices, or does not say where
        the organ is.
      UserError: pydicom is not installed.
    """
    with grey.guarded(_DAMAGED):
        dataset = _open(path)
        if dicom_segments.is_segmentation(dataset):
            return dicom_segments.read_mask(dataset, path, organ)
        _single_grey_size(dataset)
        if dicom_header.code(dataset, "PhotometricInterpretation") == "MONOCHROME1":
            raise BadEntryError("DICOM mask in MONOCHROME1: whether 0 is the organ is open")
        stored = dicom_pixels.decode(dataset, path)
        values = _modality(dataset, stored.values, signed=_is_signed(stored))
        if stored.ignored is not None:
            values = np.where(stored.ignored, 0, values)
        if stored.lossy and values.dtype == np.uint8:
            return label_maps.of_lossy(values, organ)
        return label_maps.of_numbers(values, organ)


def _open(path: Path, *, stop_before_pixels: bool = False) -> "Dataset":
    try:
        import pydicom
    except ImportError as error:
        raise UserError(
            f"{path.name} is a DICOM file and pydicom is not installed. Install it and what "
            "decompresses its pixels: pip install pydicom pyjpegls pylibjpeg pylibjpeg-openjpeg "
            "python-gdcm"
        ) from error
    try:
        _check_bytes(path)
        return pydicom.dcmread(path, stop_before_pixels=stop_before_pixels)
    except BadEntryError:
        raise
    except Exception as error:
        raise BadEntryError("DICOM header damaged or truncated") from error


def _single_grey_size(dataset: "Dataset") -> tuple[int, int]:
    """Returns height and width, and refuses what is no single grey image of sane size."""
    if dataset.get("Rows") is None and dataset.get("Columns") is None:
        raise BadEntryError("DICOM file without an image")
    height, width = (dicom_header.whole(dataset, name) for name in ("Rows", "Columns"))
    grey.check_pixel_count(height, width)
    if dicom_header.whole(dataset, "NumberOfFrames", 1) > 1:
        raise BadEntryError("multi-frame DICOM; a single image is expected")
    photometric = dicom_header.code(dataset, "PhotometricInterpretation")
    if not photometric:
        raise BadEntryError("DICOM header without PhotometricInterpretation")
    if dicom_header.whole(dataset, "SamplesPerPixel") != 1 or photometric not in (
        "MONOCHROME1",
        "MONOCHROME2",
    ):
        raise BadEntryError("colour DICOM; MONOCHROME1 or MONOCHROME2 is expected")
    return height, width


def _check_bytes(path: Path) -> None:
    """Refuses a file that is absurdly large, or unpacks to what is, before pydicom unpacks it."""
    from pydicom import filereader, uid

    if path.stat().st_size > _MAX_BYTES:
        raise BadEntryError(f"DICOM file of more than {_MAX_BYTES >> 20} MiB")
    with path.open("rb") as file:
        filereader.read_preamble(file, force=False)
        meta = filereader.read_dataset(file, False, True, stop_when=lambda tag, *_: tag.group != 2)
        if meta.get("TransferSyntaxUID") != uid.DeflatedExplicitVRLittleEndian:
            return
        unpacking = zlib.decompressobj(-zlib.MAX_WBITS)
        unpacked = 0
        while block := unpacking.unconsumed_tail or file.read(1 << 20):
            unpacked += len(unpacking.decompress(block, 1 << 24))
            if unpacked > _MAX_BYTES:
                raise BadEntryError(f"DICOM file that unpacks to more than {_MAX_BYTES >> 20} MiB")


def _is_signed(stored: dicom_pixels.Stored) -> bool:
    return stored.values.dtype.kind != "u"


def _possible_ends(stored: dicom_pixels.Stored) -> np.ndarray:
    """The smallest and largest number that so many bits can store; none for floats."""
    if stored.values.dtype.kind == "f":
        return np.empty(0)
    half = 1 << (stored.bits - 1)
    return np.array([-half, half - 1] if _is_signed(stored) else [0, 2 * half - 1])


def _modality(dataset: "Dataset", stored: np.ndarray, *, signed: bool) -> np.ndarray:
    """Turns stored values, which may be negative if `signed`, into those of the device.

    See PS3.3 C.11.1.1.
    """
    table = dicom_header.lookup(dataset, "ModalityLUTSequence", signed=signed)
    if table is not None:
        return table(stored)
    slope, intercept = dicom_header.rescale(dataset)
    return stored if (slope, intercept) == (1, 0) else stored * slope + intercept


class _Rendering:
    """The rule from stored values to levels; `name` says which it was, once it was applied."""

    def __init__(self, dataset: "Dataset", window: str, stored: dicom_pixels.Stored) -> None:
        self._dataset, self._by_file = dataset, window == "file"
        self._signed, self._ends = _is_signed(stored), _possible_ends(stored)
        self._plain = stored.bits == 8 and stored.values.dtype.kind == "u"
        self.name = ""

    def __call__(self, stored: np.ndarray, counts: np.ndarray | None) -> np.ndarray:
        values = _modality(self._dataset, stored, signed=self._signed)
        grey.check_finite(values)
        if self._by_file:
            ends = _modality(self._dataset, self._ends, signed=self._signed)
            least = min([values.min(), *ends])
            table = dicom_header.lookup(self._dataset, "VOILUTSequence", signed=bool(least < 0))
            if table is not None:
                self.name = "lookup table"
                return _look_up(table, values)
            window = dicom_header.window(self._dataset)
            if window is not None:
                self.name = "window"
                return _apply_window(values, window)
        if self._plain and values is stored:
            self.name = "as stored"
            return values.astype(np.uint8)
        self.name = "percentiles"
        return grey.to_uint8(values, counts)


def _look_up(table: dicom_header.Lookup, values: np.ndarray) -> np.ndarray:
    most = (1 << table.bits) - 1
    if table.entries.max() <= most // 2:  # Of 12 bits, say, in a table that claims to be of 16.
        raise BadEntryError("DICOM lookup table that uses fewer bits than it says")
    return grey.stretch(table(values), 0, most)


def _apply_window(values: np.ndarray, window: Window) -> np.ndarray:
    """Maps a window to 0..255 as in DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    centre, width, function = window
    if function == "SIGMOID":
        with np.errstate(over="ignore"):  # Far below the window, where the level is 0.
            return grey.stretch(1 / (1 + np.exp(-4 * (values - centre) / width)), 0, 1)
    if function == "LINEAR":
        centre, width = centre - 0.5, width - 1
        if width == 0:
            return np.where(values > centre, 255, 0).astype(np.uint8)
    elif function != "LINEAR_EXACT":
        raise BadEntryError("DICOM window of an unknown function")
    return grey.stretch(values, centre - width / 2, centre + width / 2)


def read_place(path: Path) -> tuple[str, float]:
    """Reads whose slice a file holds, and where it stands among the patient's.

    Returns:
      PatientID, "" where there is none, and InstanceNumber, 0 where there is none.

    Raises:
      BadEntryError: the header is damaged.
      UserError: pydicom is not installed.
    """
    dataset = _open(path, stop_before_pixels=True)
    patient = dicom_header.value(dataset, "PatientID")
    number = dicom_header.number(dataset, "InstanceNumber")
    return str(patient or "").strip(), number or 0.0
