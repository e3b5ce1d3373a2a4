import numpy as np
import pytest

from gxdistill.data.files import images
from gxdistill.data.files.grey import BadEntryError

pydicom = pytest.importorskip("pydicom", reason="needs the extra `dicom`")

ORGAN = np.zeros((64, 72), np.uint8)
ORGAN[10:40, 20:50] = 1


def _item(**elements):
    item = pydicom.Dataset()
    for name, value in elements.items():
        setattr(item, name, value)
    return item


def _group(number, position=(0, 0, 0)):
    return _item(
        SegmentIdentificationSequence=[_item(ReferencedSegmentNumber=number)],
        PlanePositionSequence=[_item(ImagePositionPatient=list(position))],
    )


@pytest.fixture
def read(tmp_path, write_dicom):
    def read(pixels, kind, organ=(), syntax=None, **elements):
        path = tmp_path / "seg.dcm"
        write_dicom(path, pixels, Modality="SEG", SegmentationType=kind, **elements)
        if syntax:
            dataset = pydicom.dcmread(path)
            dataset.compress(syntax)
            dataset.save_as(path)
        return images.read_mask(path, organ)

    return read


@pytest.mark.parametrize("syntax", [None, "JPEGLSLossless", "JPEG2000Lossless", "RLELossless"])
def test_the_segment_may_be_named_for_all_frames_and_pixels_be_packed(read, syntax):
    uid = syntax and getattr(pydicom.uid, syntax)
    shared = {"SharedFunctionalGroupsSequence": [_group(3)], "MaximumFractionalValue": 255}
    mask = read(ORGAN * np.uint8(255), "FRACTIONAL", syntax=uid, **shared)
    np.testing.assert_array_equal(mask, ORGAN > 0)
    np.testing.assert_array_equal(read(ORGAN, "BINARY", (3,), uid, **shared), ORGAN > 0)
    with pytest.raises(BadEntryError, match="none of the organ's labels 4 in it, but segments 3"):
        read(ORGAN, "BINARY", (4,), uid, **shared)


def test_a_label_map_is_read_by_its_segments(read):
    labels = ORGAN * np.uint8(2)
    labels[50:, :] = 5
    listed = {"SegmentSequence": [_item(SegmentNumber=n) for n in (2, 5)]}
    np.testing.assert_array_equal(read(labels, "LABELMAP", **listed), labels > 0)
    np.testing.assert_array_equal(read(labels, "LABELMAP", (2,), **listed), ORGAN > 0)
    with pytest.raises(BadEntryError, match=r"segments it does not list: \[7\]"):
        read(np.where(labels == 5, 7, labels).astype(np.uint8), "LABELMAP", **listed)


@pytest.mark.parametrize(
    ("groups", "kind", "reason"),
    [
        ([_group(1), _group(1)], "BINARY", "several slices"),
        ([_group(1), _group(2, (0, 0, 5))], "BINARY", "several slices"),
        ([_item(), _item()], "BINARY", "does not say which segment"),
        ([_group(1), _group(2)], "SURFACE", "of no known type"),
        ([_group(1), _group(2)], "FRACTIONAL", "without their maximum"),
    ],
)
def test_a_segmentation_that_does_not_tell_its_organ_is_refused(read, groups, kind, reason):
    with pytest.raises(BadEntryError, match=reason):
        read(np.stack([ORGAN, ORGAN]), kind, PerFrameFunctionalGroupsSequence=groups)
