"""Decodes a DICOM file to grey pixels. Nothing else of the file leaves this module.

A header holds names, dates and places of patients: labels and patient ids come from the manifest,
and no message here repeats a header's text, not even a decoder's own.
"""

import math
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gxdistill.data.files import decoding, grey
from gxdistill.data.files.grey import BadEntryError, Header, Picture, Spacing
from gxdistill.errors import UserError

if TYPE_CHECKING:
    from pydicom import Dataset

_MAX_BYTES = 1 << 28  # Of a file, and of what one unpacks to, of which pydicom makes two copies.
_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
_MILLIMETRES = (1e-3, 1e2)  # A spacing outside is no spacing.
_DAMAGED = "DICOM pixels damaged, truncated or compressed in a way that no installed decoder reads"


def read_header(path: Path) -> Header:
    """Reads the size and spacing of a DICOM image.

    Raises:
      BadEntryError: the header is damaged, or tells of no single grey image of sane size.
      UserError: pydicom is not installed.
    """
    dataset = _open(path, stop_before_pixels=True)
    _check_single_grey(dataset)
    return Header((int(dataset.Rows), int(dataset.Columns)), _spacing(dataset))


def read_image(path: Path, window: str = "file") -> Picture:
    """Decodes the pixels of a DICOM file to 8-bit grey, in the order of PS3.4 N.2.

    Modality LUT or rescale; then the VOI LUT, or else the first window, or else, for more than 8
    bits, the percentiles of `grey.to_uint8`; then MONOCHROME1 is inverted, so that black is 0.

    Args:
      path: of a DICOM file.
      window: "file" as above; "percentiles" passes over the file's VOI LUT and windows.

    Returns:
      The picture.

    Raises:
      BadEntryError: the file is damaged or truncated, or is no single grey image.
      UserError: pydicom is not installed.
    """
    dataset = _open(path)
    _check_single_grey(dataset)
    try:
        stored = _stored(dataset, path)
        rule = _Rendering(dataset, window)
        pixels = grey.map_values(stored, rule)
    except BadEntryError:
        raise
    except Exception as error:  # Damaged bytes make pydicom and its decoders raise nearly anything.
        raise BadEntryError(_DAMAGED) from error
    return Picture(
        255 - pixels if dataset.PhotometricInterpretation == "MONOCHROME1" else pixels,
        bits=int(dataset.BitsStored),
        window=rule.name,
        spacing=_spacing(dataset),
        says_text=dataset.get("BurnedInAnnotation") == "YES",
    )


def read_mask(path: Path, organ: Sequence[int] = ()) -> np.ndarray:
    """Reads a label map: a DICOM segmentation, or the stored values of a single grey image.

    Args:
      path: of a DICOM file.
      organ: numbers of segments, or values, that are the organ; none stands for all above 0.

    Returns:
      The mask, `[H, W]` bool.

    Raises:
      BadEntryError: the file is damaged, or a segmentation of several slices.
      UserError: pydicom is not installed.
    """
    dataset = _open(path)
    try:
        if dataset.get("Modality") == "SEG":
            return _union(dataset, organ)
        _check_single_grey(dataset)
        return grey.of_labels(_stored(dataset, path), organ)
    except BadEntryError:
        raise
    except Exception as error:
        raise BadEntryError(_DAMAGED) from error


def _union(dataset: "Dataset", organ: Sequence[int]) -> np.ndarray:
    """Joins the segments of a segmentation, each a frame."""
    if _is_stream(dataset):
        raise BadEntryError("DICOM segmentation compressed as a photograph")
    frames, height, width = int(dataset.NumberOfFrames), int(dataset.Rows), int(dataset.Columns)
    grey.check_pixel_count(frames * height, width)
    stored = dataset.pixel_array.reshape(frames, height, width)
    groups = dataset.PerFrameFunctionalGroupsSequence
    numbers = [int(g.SegmentIdentificationSequence[0].ReferencedSegmentNumber) for g in groups]
    if len(set(numbers)) < len(numbers):
        raise BadEntryError("DICOM segmentation of several slices; one of an image is expected")
    fractional = dataset.SegmentationType == "FRACTIONAL"
    least = dataset.MaximumFractionalValue / 2 if fractional else 1
    chosen = [i for i, number in enumerate(numbers) if not organ or number in organ]
    return np.asarray((stored[chosen] >= least).any(axis=0))


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
        raise BadEntryError("DICOM header damaged, truncated or without an image") from error


def _check_single_grey(dataset: "Dataset") -> None:
    try:
        height, width = int(dataset.Rows), int(dataset.Columns)
        frames = int(dataset.get("NumberOfFrames") or 1)
        colour = dataset.SamplesPerPixel != 1 or dataset.PhotometricInterpretation not in (
            "MONOCHROME1",
            "MONOCHROME2",
        )
    except Exception as error:
        raise BadEntryError("DICOM header damaged, truncated or without an image") from error
    grey.check_pixel_count(height, width)
    if frames > 1:
        raise BadEntryError("multi-frame DICOM; a single image is expected")
    if colour:
        raise BadEntryError("colour DICOM; MONOCHROME1 or MONOCHROME2 is expected")


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


def _is_stream(dataset: "Dataset") -> bool:
    """Whether the pixels are of the JPEG family; all others pydicom reads by itself, in Python."""
    from pydicom import uid

    syntax = dataset.file_meta.TransferSyntaxUID
    return syntax.is_encapsulated and syntax != uid.RLELossless


def _stored(dataset: "Dataset", path: Path) -> np.ndarray:
    from pydicom import encaps

    size = dataset.Rows, dataset.Columns
    if not _is_stream(dataset):
        stored = dataset.pixel_array
    else:
        _check_stream(encaps.get_frame(dataset.PixelData, 0, number_of_frames=1), size)
        stored = decoding.decode(path, math.prod(size))
    if stored.shape != size or stored.dtype.itemsize > 4:
        raise BadEntryError(_DAMAGED)
    return stored


def _check_stream(stream: bytes, size: tuple[int, int]) -> None:
    """Refuses a compressed image that was cut, or that is not of the size the header says.

    A decoder may take 10 s to find out, make half an image, or ask for the memory of the stream's
    own size, which nobody has checked.
    """
    if not stream.rstrip(b"\x00\xff").endswith(b"\xff\xd9"):
        raise BadEntryError("DICOM pixels truncated: the mark of their end is missing")
    if next(_stream_sizes(stream), None) != size:
        raise BadEntryError("DICOM pixels damaged: header and pixels disagree on the size")


def _stream_sizes(stream: bytes) -> Iterator[tuple[int, int]]:
    """Reads height and width from the frame headers of JPEG and JPEG-LS, the SIZ of JPEG 2000."""
    at = 2
    while at + 4 <= len(stream) and stream[at] == 0xFF:
        kind, length = stream[at + 1], int.from_bytes(stream[at + 2 : at + 4])
        body = stream[at + 4 : at + 2 + length]
        if kind == 0x51:  # SIZ: right and lower edge, then left and upper, four bytes each.
            right, lower, left, upper = (int.from_bytes(body[i : i + 4]) for i in range(2, 18, 4))
            yield lower - upper, right - left
        elif kind == 0xF7 or (0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC)):
            yield int.from_bytes(body[1:3]), int.from_bytes(body[3:5])
        # A byte FF before a mark is padding.
        at += 2 + length if kind != 0xFF else 1


class _Rendering:
    """The rule from stored values to levels; `name` says which it was, once it was applied."""

    def __init__(self, dataset: "Dataset", window: str) -> None:
        self._dataset, self._by_file = dataset, window == "file"
        self.name = ""

    def __call__(self, stored: np.ndarray, counts: np.ndarray | None) -> np.ndarray:
        from pydicom.pixels import processing

        dataset = self._dataset
        values = processing.apply_modality_lut(stored, dataset)
        grey.check_finite(values)
        if self._by_file and dataset.get("VOILUTSequence"):
            self.name = "lookup table"
            table = dataset.VOILUTSequence[0]
            looked_up = processing.apply_voi(np.rint(values).astype(np.int64), dataset)
            return grey.stretch(looked_up, 0, 2 ** int(table.LUTDescriptor[2]) - 1)
        if self._by_file and (window := _window(dataset)) is not None:
            self.name = "window"
            return _apply_window(values, *window)
        if (
            dataset.BitsStored == 8
            and dataset.PixelRepresentation == 0
            and (values == stored).all()
        ):
            self.name = "as stored"
            return values.astype(np.uint8)
        self.name = "percentiles"
        return grey.to_uint8(values, counts)


def _spacing(dataset: "Dataset") -> Spacing | None:
    """The first spacing that makes sense: at the patient, at the detector, of the film's scan."""
    low, high = _MILLIMETRES
    for name in _SPACINGS:
        try:
            row, column = map(float, dataset.get(name) or ())
        except (TypeError, ValueError):
            continue
        if low <= row <= high and low <= column <= high:
            return row, column
    return None


def _window(dataset: "Dataset") -> tuple[float, float, str] | None:
    """The first window as (centre, width, function); None where there is no valid one."""
    centres, widths = (np.ravel(dataset.get(k) or ()) for k in ("WindowCenter", "WindowWidth"))
    if not len(centres) or not len(widths):
        return None
    function = str(dataset.get("VOILUTFunction") or "LINEAR")
    centre, width = float(centres[0]), float(widths[0])
    valid = math.isfinite(centre) and math.inf > width > (function == "LINEAR")
    return (centre, width, function) if valid else None


def _apply_window(values: np.ndarray, centre: float, width: float, function: str) -> np.ndarray:
    """Maps a window to 0..255 as in DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    if function == "SIGMOID":
        return grey.stretch(1 / (1 + np.exp(-4 * (values - centre) / width)), 0, 1)
    if function == "LINEAR":
        centre, width = centre - 0.5, width - 1
    elif function != "LINEAR_EXACT":
        raise BadEntryError("DICOM window of an unknown function")
    return grey.stretch(values, centre - width / 2, centre + width / 2)
