"""Reads the values of a DICOM header that decide on pixels, wherever they stand.

An element may be absent, empty, zero, of text that is no number, or stand in a functional group of
the frame: each is told from the others here, and nowhere else.
"""

import math
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gxdistill.data.files.grey import BadEntryError, Spacing

if TYPE_CHECKING:
    from pydicom import Dataset

_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
_MILLIMETRES = (1e-3, 1e2)  # A spacing outside is no spacing.
_GROUPS = ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence")
_MACROS = (  # Of PS3.3 C.7.6.16.2 and C.8.19.6: what of a frame stands in a sequence of its own.
    "PixelValueTransformationSequence",
    "FrameVOILUTSequence",
    "PixelMeasuresSequence",
    "FramePixelDataPropertiesSequence",
)
_FLOAT_PADDING = {"f4": "Float", "f8": "DoubleFloat"}  # Of pixels of that type.
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+")  # Or three decimals: nobody knows.
_NUMBER = re.compile(r"[+-]?(\d+[.,]?\d*|[.,]\d+)([eE][+-]?\d+)?|[+-]?(nan|inf)", re.IGNORECASE)


class Lookup(NamedTuple):
    """A lookup table.

    Attributes:
      first: the value that the first entry is for; smaller ones take it, too.
      entries: `[n]` uint16.
      bits: of an entry.
    """

    first: int
    entries: np.ndarray
    bits: int

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Looks up values of any shape."""
        places = np.rint(values.astype(np.float64)) - self.first
        return self.entries[places.clip(0, len(self.entries) - 1).astype(np.int64)]


class Window(NamedTuple):
    """A window of values that are shown from black to white, by a function of PS3.3 C.11.2.1."""

    centre: float
    width: float
    function: str


class Padding(NamedTuple):
    """The stored values that show nothing: those from `low` to `high`."""

    low: float
    high: float


def value(dataset: "Dataset", keyword: str) -> Any:
    """The value of an element of the frame; None where it is absent or empty.

    What stands in the frame's functional groups goes before what stands in the shared ones, and
    that before the element of the object itself.

    Raises:
      BadEntryError: the element cannot be read.
    """
    for place in _places(dataset):
        try:
            element = place.get(keyword)
        except Exception as error:  # Damaged bytes make pydicom raise nearly anything.
            raise BadEntryError(f"DICOM header damaged: {keyword} cannot be read") from error
        if element is not None and not (isinstance(element, Sequence) and not len(element)):
            return element
    return None


def numbers(dataset: "Dataset", keyword: str) -> list[float]:
    """The numbers of an element of the frame; empty where it is absent or empty.

    A decimal comma, as some devices write, counts as a point.

    Raises:
      BadEntryError: a value is no number.
    """
    return [number for number in _components(dataset, keyword) if number is not None]


def number(dataset: "Dataset", keyword: str) -> float | None:
    """The first number of an element of the frame; None where it is absent or empty.

    Raises:
      BadEntryError: the value is no number.
    """
    return next(iter(numbers(dataset, keyword)), None)


def whole(dataset: "Dataset", keyword: str, otherwise: int | None = None) -> int:
    """A whole number that the header must give, or `otherwise` stands for it.

    Raises:
      BadEntryError: there is none.
    """
    given = number(dataset, keyword)
    if given is None:
        if otherwise is None:
            raise BadEntryError(f"DICOM header without {keyword}")
        return otherwise
    if not math.isfinite(given) or given % 1:
        raise BadEntryError(f"DICOM header damaged: {keyword} is no whole number")
    return int(given)


def code(dataset: "Dataset", keyword: str) -> str:
    """The code of an element, without blanks and in capitals; empty where it is absent or empty."""
    return str(value(dataset, keyword) or "").strip(" \0").upper()


def spacing(dataset: "Dataset") -> Spacing | None:
    """The first spacing that makes sense: at the patient, at the detector, of the film's scan."""
    low, high = _MILLIMETRES
    for name in _SPACINGS:
        try:
            row, column = numbers(dataset, name)
        except (BadEntryError, ValueError):
            continue
        if low <= row <= high and low <= column <= high:
            return row, column
    return None


def rescale(dataset: "Dataset") -> tuple[float, float]:
    """Slope and intercept; 1 and 0 where they are absent or empty.

    Raises:
      BadEntryError: the slope is 0, or one of them is no finite number.
    """
    slope, intercept = (number(dataset, f"Rescale{name}") for name in ("Slope", "Intercept"))
    slope, intercept = 1.0 if slope is None else slope, intercept or 0.0
    if slope == 0 or not math.isfinite(slope) or not math.isfinite(intercept):
        raise BadEntryError("DICOM rescale slope or intercept that makes no sense")
    return slope, intercept


def window(dataset: "Dataset") -> Window | None:
    """The first window that is valid; None where none is.

    Raises:
      BadEntryError: a centre or width is no number.
    """
    function = code(dataset, "VOILUTFunction") or "LINEAR"
    centres, widths = (_components(dataset, f"Window{name}") for name in ("Center", "Width"))
    for centre, width in zip(centres, widths, strict=False):
        if centre is None or width is None or not math.isfinite(centre):
            continue
        if math.inf > width > 0 and (width >= 1 or function != "LINEAR"):
            return Window(centre, width, function)
    return None


def lookup(dataset: "Dataset", sequence: str, *, signed: bool) -> Lookup | None:
    """The first lookup table of a sequence that is not empty; None where there is none.

    Args:
      dataset: the header.
      sequence: "ModalityLUTSequence" or "VOILUTSequence".
      signed: whether values that are looked up may be negative, in whatever image of the device.

    Raises:
      BadEntryError: the table is shorter than it says, or has other numbers than it says.
    """
    for item in value(dataset, sequence) or ():
        descriptor, data = numbers(item, "LUTDescriptor"), value(item, "LUTData")
        if not descriptor or data is None:
            continue
        if len(descriptor) != 3:
            raise BadEntryError("DICOM lookup table damaged: three numbers are to describe it")
        length, first, bits = map(int, descriptor)
        length = length or 1 << 16  # Of 16 bits, in which that number is 0.
        first = (first + (1 << 15)) % (1 << 16) - (1 << 15) if signed else first % (1 << 16)
        if not 1 <= bits <= 16:
            raise BadEntryError(f"DICOM lookup table of {bits} bits; at most 16 are read")
        entries = _entries(data, length, bits, big_endian=dataset.original_encoding[1] is False)
        if entries.max() >> bits:
            raise BadEntryError(f"DICOM lookup table of {bits} bits holds larger numbers")
        return Lookup(first, entries, bits)
    return None


def padding(dataset: "Dataset", dtype: np.dtype) -> Padding | None:
    """The stored values that stand for no picture; None where there are none.

    Args:
      dataset: the header.
      dtype: of the stored values; the header may give them with or without their sign.

    Raises:
      BadEntryError: a value is no number.
    """
    ends = []
    for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
        given = number(dataset, _FLOAT_PADDING.get(dtype.str[1:], "") + keyword)
        if given is None or not math.isfinite(given):
            break
        if dtype.kind in "iu":
            half = 1 << (8 * dtype.itemsize - 1)
            if not -half <= given < 2 * half:  # As 65535 of 8 bits: no pixel can have it.
                break
            least = -half if dtype.kind == "i" else 0
            given = (int(given) - least) % (2 * half) + least
        ends.append(float(given))
    return Padding(min(ends), max(ends)) if ends else None


def _places(dataset: "Dataset") -> Iterator["Dataset"]:
    for group in _GROUPS:
        for item in (dataset.get(group) or ())[:1]:
            for macro in _MACROS:
                yield from (item.get(macro) or ())[:1]
            yield item
    yield dataset


def _components(dataset: "Dataset", keyword: str) -> list[float | None]:
    """The values of an element of the frame, None in the place of an empty one."""
    given = value(dataset, keyword)
    if given is None:
        return []
    many = isinstance(given, Sequence) and not isinstance(given, str | bytes)
    return [
        None if text in (None, "") else _number(text, keyword)
        for text in (given if many else [given])
    ]


def _number(text: Any, keyword: str) -> float:
    if isinstance(text, int | float):
        return float(text)
    written = str(text).strip(" \0")
    if not _NUMBER.fullmatch(written) or _THOUSANDS.fullmatch(written):
        raise BadEntryError(f"DICOM header: {keyword} is no number that can be read without doubt")
    return float(written.replace(",", "."))


def _entries(data: Any, length: int, bits: int, *, big_endian: bool) -> np.ndarray:
    """Unpacks the entries of a table, of a byte or of two each, whatever holds them."""
    if not isinstance(data, bytes):
        words = np.ravel(np.asarray(data, np.int64)) & 0xFFFF
        if len(words) >= length:
            return words[:length].astype(np.uint16)
        data = words.astype(">u2" if big_endian else "<u2").tobytes()
    if len(data) >= 2 * length:
        return np.frombuffer(data, ">u2" if big_endian else "<u2")[:length].astype(np.uint16)
    if bits <= 8 and length <= len(data) <= length + 1:
        return np.frombuffer(data, np.uint8)[:length].astype(np.uint16)
    raise BadEntryError("DICOM lookup table cut: it is shorter than it says")
