"""Decodes a DICOM file to grey pixels. Nothing else of the file leaves this module.

A header holds names, dates and places of patients: labels and patient ids come from the manifest,
and no message here repeats a header's text, not even a decoder's own.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gxdistill.data import grey
from gxdistill.data.grey import BadEntryError
from gxdistill.errors import UserError

if TYPE_CHECKING:
    from pydicom import Dataset


def read_size(path: Path) -> tuple[int, int]:
    """Reads the height and width of a DICOM image in pixels from its header.

    Raises:
      BadEntryError: the header is damaged, or tells of no single grey image of sane size.
      UserError: pydicom is not installed.
    """
    dataset = _read(path, stop_before_pixels=True)
    return int(dataset.Rows), int(dataset.Columns)


def read_image(path: Path) -> np.ndarray:
    """Decodes the pixels of a DICOM file to 8-bit grey, in the order of PS3.4 N.2.

    Modality LUT or rescale; then the VOI LUT, or else the first window, or else, for more than 8
    bits, the percentiles of `grey.to_uint8`; then MONOCHROME1 is inverted, so that black is 0.

    Args:
      path: of a DICOM file.

    Returns:
      Pixels, `[H, W]` uint8.

    Raises:
      BadEntryError: the file is damaged or truncated, or is no single grey image.
      UserError: pydicom is not installed.
    """
    dataset = _read(path)
    try:
        _check_end(dataset)
        pixels = _render(dataset)
    except BadEntryError:
        raise
    except Exception as error:  # Damaged bytes make pydicom and its decoders raise nearly anything.
        raise BadEntryError(
            "DICOM pixels damaged, truncated or compressed in a way that no installed decoder reads"
        ) from error
    return 255 - pixels if dataset.PhotometricInterpretation == "MONOCHROME1" else pixels


def _read(path: Path, *, stop_before_pixels: bool = False) -> "Dataset":
    try:
        import pydicom
    except ImportError as error:
        raise UserError(
            f"{path.name} is a DICOM file and pydicom is not installed. "
            f"Install it: pip install 'gxdistill[dicom]'"
        ) from error
    try:
        dataset = pydicom.dcmread(path, stop_before_pixels=stop_before_pixels)
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
    return dataset


def _check_end(dataset: "Dataset") -> None:
    """Refuses a JPEG stream that was cut: a decoder may take 10 s to find out, or never do."""
    from pydicom import encaps, uid

    marked = *uid.JPEGTransferSyntaxes, *uid.JPEGLSTransferSyntaxes, *uid.JPEG2000TransferSyntaxes
    if dataset.file_meta.TransferSyntaxUID in marked:
        stream = encaps.get_frame(dataset.PixelData, 0, number_of_frames=1)
        if not stream.rstrip(b"\x00\xff").endswith(b"\xff\xd9"):
            raise BadEntryError("DICOM pixels truncated: the mark of their end is missing")


def _render(dataset: "Dataset") -> np.ndarray:
    from pydicom.pixels import processing

    stored = dataset.pixel_array
    values = processing.apply_modality_lut(stored, dataset)
    grey.check_finite(values)
    if dataset.get("VOILUTSequence"):
        table = dataset.VOILUTSequence[0]
        looked_up = processing.apply_voi(np.rint(values).astype(np.int64), dataset)
        return grey.stretch(looked_up, 0, 2 ** int(table.LUTDescriptor[2]) - 1)
    window = _window(dataset)
    if window is not None:
        return _apply_window(values, *window)
    if values.dtype == np.uint8 and dataset.BitsStored == 8:
        return values
    return grey.to_uint8(values)


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
