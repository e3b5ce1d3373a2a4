"""Decodes the stored values of a DICOM file, and refuses by name what cannot be decoded."""

import importlib.util
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gxdistill.data.files import decoding, dicom_header
from gxdistill.data.files.grey import BadEntryError

if TYPE_CHECKING:
    from pydicom import Dataset

_FLOATS = {"FloatPixelData": np.float32, "DoubleFloatPixelData": np.float64}
_ALLOCATED = (1, 8, 16, 32)  # Bits of a whole number.
_JP2, _J2K = b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"  # How file and bare stream begin.
_DAMAGED = "DICOM pixels damaged or truncated"


class _Decoder(NamedTuple):
    """What decodes a family of compressions, and what is to be installed for it."""

    modules: tuple[str, ...]
    packages: str


_JPEG = _Decoder(("gdcm",), "python-gdcm")
_JPEG_LS = _Decoder(("jpeg_ls",), "pyjpegls")
_JPEG_2000 = _Decoder(("openjpeg", "pylibjpeg"), "pylibjpeg pylibjpeg-openjpeg")


class Stored(NamedTuple):
    """The stored values of one frame or several.

    Attributes:
      values: `[H, W]` or `[frames, H, W]`, integer or float, of the bits that are stored: what
        stands above them, as overlays did, is left out.
      ignored: same shape, bool, where there is no picture but padding; None where the file names
        no padding.
      bits: of a value.
      lossy: whether a photograph's compression may have changed the values.
    """

    values: np.ndarray
    ignored: np.ndarray | None
    bits: int
    lossy: bool


def decode(dataset: "Dataset", path: Path, frames: int = 1) -> Stored:
    """Decodes the stored values of a DICOM file.

    Args:
      dataset: its header and pixels.
      path: of the file.
      frames: that the header claims.

    Returns:
      The values.

    Raises:
      BadEntryError: the file says not how its pixels are coded, no decoder for it is installed, or
        they are damaged, truncated, or not of the size that the header says.
    """
    size = dicom_header.whole(dataset, "Rows"), dicom_header.whole(dataset, "Columns")
    shape = size if frames == 1 else (frames, *size)
    raw = _raw(dataset, path, frames)
    if raw.size != math.prod(shape):
        raise BadEntryError("DICOM pixels damaged: header and pixels disagree on the size")
    raw = raw.reshape(shape)
    if raw.dtype.kind == "f":
        values, bits = raw, 8 * raw.dtype.itemsize
    else:
        values, bits = _stored_bits(dataset, raw)
    return Stored(values, _padded(dataset, raw, values), bits, _is_lossy(dataset))


def bits(dataset: "Dataset") -> int:
    """The depth of the pixels that a header tells; floats have no other than what they take."""
    allocated = dicom_header.whole(dataset, "BitsAllocated")
    return dicom_header.whole(dataset, "BitsStored", allocated)


def _raw(dataset: "Dataset", path: Path, frames: int) -> np.ndarray:
    given = [name for name in ("PixelData", *_FLOATS) if dicom_header.value(dataset, name)]
    if len(given) != 1:
        what = "without pixels" if not given else "with pixels of several kinds"
        raise BadEntryError(f"DICOM file {what}")
    if is_stream(dataset):
        _check_streams(dataset, frames)
        side = math.prod((int(dataset.Rows), int(dataset.Columns), frames))
        return decoding.decode(path, side)
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        return _by_pydicom(dataset)
    _check_length(dataset, given[0], frames)
    big_endian = dataset.original_encoding[1] is False
    dtype = np.dtype(_FLOATS.get(given[0]) or f"u{max(dataset.BitsAllocated, 8) // 8}")
    if dataset.get("BitsAllocated") == 1 or (dtype.itemsize == 1 and big_endian):
        return _by_pydicom(dataset)
    # Not by pydicom, which blackens the bits above those stored, even where they are the highest.
    content = dataset[given[0]].value[: _count(dataset, frames) * dtype.itemsize]
    return np.frombuffer(content, dtype.newbyteorder(">" if big_endian else "<")).astype(dtype)


def _by_pydicom(dataset: "Dataset") -> np.ndarray:
    try:
        return dataset.pixel_array
    except Exception as error:  # Damaged bytes make pydicom and its decoders raise nearly anything.
        raise BadEntryError(_DAMAGED) from error


def _count(dataset: "Dataset", frames: int) -> int:
    return frames * int(dataset.Rows) * int(dataset.Columns)


def _check_length(dataset: "Dataset", keyword: str, frames: int) -> None:
    """Refuses pixels of another length than the header says, which may be of another shape."""
    name = f"DICOM header: {keyword}"
    if keyword in _FLOATS:
        allocated = 8 * np.dtype(_FLOATS[keyword]).itemsize
    else:
        allocated = dicom_header.whole(dataset, "BitsAllocated")
        if allocated not in _ALLOCATED:
            raise BadEntryError(f"{name} of {allocated} bits allocated; 1, 8, 16 or 32 are read")
    expected = -(-_count(dataset, frames) * allocated // 8)
    length = len(dataset[keyword].value)
    if length < expected:
        raise BadEntryError(f"DICOM pixels truncated: {length} of {expected} bytes")
    row = min(int(dataset.Rows), int(dataset.Columns)) * allocated // 8
    if length >= expected + max(row, 2):
        raise BadEntryError("DICOM pixels damaged: header and pixels disagree on the size")


def _stored_bits(dataset: "Dataset", raw: np.ndarray) -> tuple[np.ndarray, int]:
    """Returns the values of the bits that are stored, with their sign, and the number of bits."""
    allocated = dicom_header.whole(dataset, "BitsAllocated")
    n_bits = bits(dataset)
    high = dicom_header.whole(dataset, "HighBit", n_bits - 1)
    if not 0 < n_bits <= allocated or not n_bits <= high + 1 <= allocated:
        raise BadEntryError(
            f"DICOM header: {n_bits} bits of {allocated} up to bit {high} cannot be stored"
        )
    shift, width = high + 1 - n_bits, 8 * raw.dtype.itemsize
    if raw.dtype.kind not in "iu" or raw.dtype.itemsize > 4:
        raise BadEntryError(_DAMAGED)
    if shift and (dataset.file_meta.TransferSyntaxUID.is_encapsulated or high + 1 > width):
        raise BadEntryError("DICOM pixels compressed with bits below them: where is not said")
    signed = dicom_header.whole(dataset, "PixelRepresentation", 0) == 1
    left = max(width - n_bits - shift, 0)
    right = left + shift
    moved = raw.view(f"u{raw.dtype.itemsize}") << left if left else raw
    # The shift to the right brings the sign along.
    moved = moved.view(f"{'i' if signed else 'u'}{raw.dtype.itemsize}")
    return (moved >> right if right else moved), n_bits


def _padded(dataset: "Dataset", raw: np.ndarray, values: np.ndarray) -> np.ndarray | None:
    padding = dicom_header.padding(dataset, values.dtype)
    if padding is None:
        return None
    ignored = (values >= padding.low) & (values <= padding.high)
    if raw.dtype.kind != "f":  # A value for padding may take all the bits that are allocated.
        ignored |= raw.view(values.dtype) == padding.low
    return ignored


def syntax_of(dataset: "Dataset") -> str:
    """Refuses what no decoder here is for, and returns how the pixels are coded.

    Raises:
      BadEntryError: the file does not say how, or nothing decodes it.
    """
    from pydicom import uid

    meta = getattr(dataset, "file_meta", None)
    syntax = meta.get("TransferSyntaxUID") if meta else None
    if not syntax:
        raise BadEntryError("DICOM file without a transfer syntax: how it is coded is not said")
    if syntax in uid.UncompressedTransferSyntaxes or syntax == uid.RLELossless:
        return str(syntax)
    known = uid.UID(syntax)
    name = None if known.is_private or known.name == syntax else known.name
    families = (
        (uid.JPEGLSTransferSyntaxes, _JPEG_LS),
        (uid.JPEG2000TransferSyntaxes, _JPEG_2000),
        (uid.JPEGTransferSyntaxes, _JPEG),
    )
    decoder = next((decoder for syntaxes, decoder in families if syntax in syntaxes), None)
    if name is None or decoder is None:  # The number itself is text of the header.
        raise BadEntryError(f"DICOM pixels compressed as {name or 'nobody knows'}: not read here")
    if not all(importlib.util.find_spec(module) for module in decoder.modules):
        raise BadEntryError(
            f"DICOM pixels compressed as {name}; to read them: pip install {decoder.packages}"
        )
    return str(syntax)


def is_stream(dataset: "Dataset") -> bool:
    """Whether the pixels are of the JPEG family; all others pydicom reads by itself, in Python.

    Raises:
      BadEntryError: the file does not say how they are coded, or nothing decodes it.
    """
    from pydicom import uid

    syntax = uid.UID(syntax_of(dataset))
    return syntax.is_encapsulated and syntax != uid.RLELossless


def _is_lossy(dataset: "Dataset") -> bool:
    from pydicom import uid

    lossy = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLSNearLossless)
    return dataset.file_meta.TransferSyntaxUID in lossy


def _check_streams(dataset: "Dataset", frames: int) -> None:
    from pydicom import encaps

    size = int(dataset.Rows), int(dataset.Columns)
    try:
        for i in range(frames):
            stream = encaps.get_frame(dataset.PixelData, i, number_of_frames=frames)
            _check_stream(stream, size)
    except BadEntryError:
        raise
    except Exception as error:
        raise BadEntryError(_DAMAGED) from error


def _check_stream(stream: bytes, size: tuple[int, int]) -> None:
    """Refuses a compressed image that was cut, or that is not of the size the header says.

    A decoder may take 10 s to find out, make half an image, or ask for the memory of the stream's
    own size, which nobody has checked.
    """
    if not stream.rstrip(b"\x00\xff").endswith(b"\xff\xd9"):
        raise BadEntryError("DICOM pixels truncated: the mark of their end is missing")
    if stream.startswith(_JP2):  # A file in place of the bare stream, whose parts stand in boxes.
        stream = stream[max(stream.find(_J2K), 0) :]
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
