"""Reads what a PNG, JPEG or TIFF says of its pixels in its own header.

Pillow keeps 8 of 16 bits of a colour, takes signed bytes for unsigned ones and cannot tell a TIFF
of 64 bits from a text, all without a word: so the header is read here before Pillow is asked.
"""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

from gxdistill.data.files.grey import BadEntryError

_HEAD = 512  # Bytes that tell the kind of a file.
_MOST_PARTS = 100_000  # Of a file: chunks of a PNG, marks of a JPEG, entries of a TIFF.
_OTHERS = (  # Kinds that are named and not read: where their mark stands, and what it is.
    (0, b"GIF8", "GIF image"),
    (0, b"BM", "BMP image"),
    (8, b"WEBP", "WebP image"),
    (4, b"jP  ", "JPEG 2000 image"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000 stream"),
    (4, b"ftyp", "HEIF, AVIF or video file"),
    (344, b"n+1\0", "NIfTI volume"),
    (344, b"ni1\0", "NIfTI header"),
    (0, b"NRRD", "NRRD volume"),
    (0, b"\x1f\x8b", "file packed by gzip"),
    (0, b"PK\x03\x04", "ZIP archive"),
    (0, b"%PDF", "PDF document"),
    (0, b"\x89HDF", "HDF5 file"),
    (0, b"\x93NUMPY", "NumPy array"),
)
_ORIENTATION = 274
_NUMBERS = {1: "unsigned", 2: "signed", 3: "float"}  # TIFF's SampleFormat.
_COLOURS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # PNG's colour type: samples of a pixel.


class Layout(NamedTuple):
    """How a file stores its pixels.

    Attributes:
      kind: "PNG", "JPEG" or "TIFF".
      bits: of a sample.
      samples: of a pixel.
      numbers: "unsigned", "signed" or "float".
      white_is_zero: whether the smallest number is white.
      lossy: whether it is compressed with loss.
      turned: whether the file may bear an orientation.
      orientation: of a TIFF, as its tag 274 says; 0 where it says none.
      upright: of a TIFF, where that number stands and the bytes that would stand there for 1.
    """

    kind: str
    bits: int = 8
    samples: int = 1
    numbers: str = "unsigned"
    white_is_zero: bool = False
    lossy: bool = False
    turned: bool = True
    orientation: int = 0
    upright: tuple[int, bytes] = (0, b"")

    def __str__(self) -> str:
        """Says it for people, as in "TIFF of 64-bit float numbers"."""
        each = f" in each of {self.samples} channels" if self.samples > 1 else ""
        return f"{self.kind} of {self.bits}-bit {self.numbers} numbers{each}"


def read_layout(path: Path) -> Layout:
    """Reads how a file stores its pixels.

    Args:
      path: of a file; its bytes tell its kind.

    Returns:
      The layout.

    Raises:
      BadEntryError: it is of another kind, which is named, of a kind of pixels that is not read, or
        damaged.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
        try:
            for mark, parse in _PARSERS.items():
                if head.startswith(mark):
                    return parse(file, head)
        except (struct.error, LookupError, ValueError, OverflowError, OSError) as error:
            raise BadEntryError(f"damaged or truncated ({type(error).__name__})") from error
    for at, mark, name in _OTHERS:
        if head[at : at + len(mark)] == mark:
            raise BadEntryError(f"{name}; a PNG, JPEG, TIFF or DICOM file is expected")
    raise BadEntryError("not a readable PNG, JPEG, TIFF or DICOM file")


def _refused(layout: Layout, what: str = "") -> BadEntryError:
    return BadEntryError(f"{layout}{what}, which is not read; save it as grey of 8 or 16 bits")


def _png(file: BinaryIO, head: bytes) -> Layout:
    bits, colour = head[24], head[25]
    layout = Layout("PNG", bits, _COLOURS[colour], turned=False)
    at = 8
    for _ in range(_MOST_PARTS):
        file.seek(at)
        chunk = file.read(8 + 40)
        if len(chunk) < 8 or chunk[4:8] == b"IEND":
            break
        # Of texts those that Pillow takes an orientation from; others would cost a decoding.
        if chunk[4:8] == b"eXIf" or (
            chunk[4:8] in (b"iTXt", b"tEXt", b"zTXt")
            and chunk[8:].startswith((b"XML:com.adobe.xmp", b"Raw profile type"))
        ):
            return layout._replace(turned=True)
        at += 12 + int.from_bytes(chunk[:4])
    return layout


def _jpeg(file: BinaryIO, _: bytes) -> Layout:
    at = 2
    for _part in range(_MOST_PARTS):
        file.seek(at)
        part = file.read(10)
        kind, length = part[1], int.from_bytes(part[2:4])
        if part[0] != 0xFF or kind == 0xD9:
            break
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            layout = Layout("JPEG", part[4], part[9], lossy=True)
            if kind in (0xC3, 0xC7, 0xCB, 0xCF):
                raise _refused(layout, " and lossless")
            if layout.bits != 8:
                raise _refused(layout)
            return layout
        if kind == 0xF7:
            raise BadEntryError("JPEG-LS stream; a PNG, JPEG, TIFF or DICOM file is expected")
        at += 2 + length if kind != 0xFF else 1  # A byte FF before a mark is padding.
    raise BadEntryError("damaged or truncated (no frame in a JPEG)")


class _Tiff(NamedTuple):
    """How a TIFF writes numbers."""

    order: str
    length: str  # Of a directory.
    offset: str

    def unpack(self, file: BinaryIO, kind: str) -> int:
        return struct.unpack(self.order + kind, file.read(struct.calcsize(self.order + kind)))[0]


def _tiff_entries(
    file: BinaryIO, head: bytes
) -> tuple[dict[int, tuple[int, ...]], tuple[int, bytes]]:
    """The tags of the first directory that hold a few whole numbers, and `Layout.upright`."""
    order = "<" if head[:2] == b"II" else ">"
    big = 43 in head[2:4]
    form = _Tiff(order, *(("Q", "Q") if big else ("H", "I")))
    file.seek(8 if big else 4)
    file.seek(form.unpack(file, form.offset))
    entries, upright = {}, (0, b"")
    for _ in range(min(form.unpack(file, form.length), _MOST_PARTS)):
        tag, kind = form.unpack(file, "H"), form.unpack(file, "H")
        count = form.unpack(file, form.offset)
        value = file.read(8 if big else 4)
        after = file.tell()
        letter = {1: "B", 3: "H", 4: "I", 16: "Q"}.get(kind)
        if letter and 0 < count <= 16:
            size = count * struct.calcsize(order + letter)
            if size > len(value):
                file.seek(struct.unpack(order + form.offset, value)[0])
                value = file.read(size)
                file.seek(after)
            if tag == _ORIENTATION:
                upright = after - (8 if big else 4), struct.pack(order + letter, 1)
            entries[tag] = struct.unpack(f"{order}{count}{letter}", value[:size])
    return entries, upright


def _tiff(file: BinaryIO, head: bytes) -> Layout:
    tags, upright = _tiff_entries(file, head)
    bits, forms = tags.get(258, (1,)), tags.get(339, (1,))
    (samples,), (photometric,) = tags.get(277, (1,)), tags.get(262, (1,))
    (planes,), (compression,) = tags.get(284, (1,)), tags.get(259, (1,))
    layout = Layout(
        "TIFF",
        max(bits),
        samples,
        _NUMBERS.get(forms[0], "unknown"),
        white_is_zero=photometric == 0,
        lossy=compression in (6, 7, 34892, 50001),  # JPEG, old and new, lossy DNG, WebP.
        orientation=tags.get(_ORIENTATION, (0,))[0],
        upright=upright,
    )
    if len({*bits}) > 1 or len({*forms}) > 1:
        raise _refused(layout, " of several depths")
    if photometric not in (0, 1, 2, 3, 6):
        raise _refused(layout, " of no grey, red, green and blue, or palette")
    if planes == 2 and samples > 1 and layout.bits > 8:
        raise _refused(layout, " in planes apart")
    known = {"unsigned": (1, 2, 4, 8, 12, 16, 32), "signed": (8, 16, 32), "float": (32,)}
    if layout.bits not in known.get(layout.numbers, ()):
        raise _refused(layout)
    if samples > 1 and (layout.numbers != "unsigned" or layout.bits not in (8, 16)):
        raise _refused(layout)
    return layout


_PARSERS: dict[bytes, Callable[[BinaryIO, bytes], Layout]] = {
    b"\x89PNG\r\n\x1a\n": _png,
    b"\xff\xd8\xff": _jpeg,
    b"II*\0": _tiff,
    b"MM\0*": _tiff,
    b"II+\0": _tiff,
    b"MM\0+": _tiff,
}
