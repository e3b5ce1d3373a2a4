"""Reads the organ mask of a DICOM segmentation: PS3.3 A.51, and label maps, A.51.5."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gxdistill.data.files import dicom_header, dicom_pixels, grey, label_maps
from gxdistill.data.files.grey import BadEntryError

if TYPE_CHECKING:
    from pydicom import Dataset

_STORAGES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_PER_FRAME, _SHARED = "PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"
_TYPES = ("BINARY", "FRACTIONAL", "LABELMAP")


def is_segmentation(dataset: "Dataset") -> bool:
    """Whether a header is that of a segmentation."""
    return dicom_header.code(dataset, "Modality") == "SEG" or (
        dicom_header.code(dataset, "SOPClassUID") in _STORAGES
    )


def read_mask(dataset: "Dataset", path: Path, organ: Sequence[int] = ()) -> np.ndarray:
    """Joins the segments of a segmentation of one image.

    Args:
      dataset: its header and pixels.
      path: of the file.
      organ: numbers of the segments that are the organ; none stands for all.

    Returns:
      The mask, `[H, W]` bool; of a fractional segmentation what reaches half of its maximum.

    Raises:
      BadEntryError: it is of several slices, lossy, damaged, or does not tell its segments.
    """
    kind = dicom_header.code(dataset, "SegmentationType")
    if kind not in _TYPES:
        raise BadEntryError(f"DICOM segmentation of no known type; {', '.join(_TYPES)} are read")
    frames = dicom_header.whole(dataset, "NumberOfFrames", 1)
    height, width = (dicom_header.whole(dataset, name) for name in ("Rows", "Columns"))
    if min(frames, height, width) < 1:
        raise BadEntryError("DICOM segmentation without frames")
    grey.check_pixel_count(frames * height, width)
    if dicom_header.whole(dataset, "SamplesPerPixel", 1) != 1:
        raise BadEntryError("DICOM segmentation in colours")
    stored = dicom_pixels.decode(dataset, path, frames)
    values = stored.values.reshape(frames, height, width)
    if stored.lossy:
        raise BadEntryError("DICOM segmentation compressed with loss")
    if kind == "LABELMAP":
        return _of_label_map(dataset, values, organ)
    numbers = [_segment_number(dataset, i) for i in range(frames)]
    positions = {_position(dataset, i) for i in range(frames)}
    if len(set(numbers)) < len(numbers) or len(positions) > 1:
        raise BadEntryError("DICOM segmentation of several slices; one of an image is expected")
    chosen = [i for i, number in enumerate(numbers) if not organ or number in organ]
    if not chosen:
        raise BadEntryError(
            f"none of the organ's labels {', '.join(map(str, organ))} in it, but segments "
            f"{', '.join(map(str, sorted(numbers)))}"
        )
    if kind == "FRACTIONAL":
        most = dicom_header.number(dataset, "MaximumFractionalValue") or 0
        if not 0 < most < 1 << 16:
            raise BadEntryError("DICOM segmentation of fractions without their maximum")
        return np.asarray((values[chosen] >= most / 2).any(axis=0))
    return np.asarray(
        label_maps.of_numbers(values[chosen].reshape(-1, width))
        .reshape(len(chosen), height, width)
        .any(axis=0)
    )


def _of_label_map(dataset: "Dataset", values: np.ndarray, organ: Sequence[int]) -> np.ndarray:
    """Of a label map a pixel's value is the number of its segment, 0 or the padding of none."""
    if len(values) > 1:
        raise BadEntryError("DICOM segmentation of several slices; one of an image is expected")
    labels = values[0]
    known = {dicom_header.whole(s, "SegmentNumber") for s in dataset.get("SegmentSequence") or ()}
    background = {0, dicom_header.whole(dataset, "PixelPaddingValue", 0)}
    unknown = set(np.unique(labels).tolist()) - known - background
    if unknown:
        raise BadEntryError(
            f"DICOM label map with segments it does not list: {sorted(unknown)[:5]}"
        )
    if organ:
        return label_maps.of_numbers(labels, organ)
    return ~np.isin(labels, sorted(background))


def _item(dataset: "Dataset", frame: int, macro: str) -> "Dataset | None":
    """The first item of a frame's functional group, its own or the shared one."""
    of_frame = (dataset.get(_PER_FRAME) or ())[frame : frame + 1]
    for group in (*of_frame, *(dataset.get(_SHARED) or ())[:1]):
        for item in (group.get(macro) or ())[:1]:
            return item
    return None


def _segment_number(dataset: "Dataset", frame: int) -> int:
    item = _item(dataset, frame, "SegmentIdentificationSequence")
    if item is None:
        raise BadEntryError("DICOM segmentation that does not say which segment a frame is of")
    return dicom_header.whole(item, "ReferencedSegmentNumber")


def _position(dataset: "Dataset", frame: int) -> tuple[float, ...]:
    item = _item(dataset, frame, "PlanePositionSequence")
    return tuple(dicom_header.numbers(item, "ImagePositionPatient")) if item else ()
