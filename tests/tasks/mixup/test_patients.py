"""Patients as the client reads them."""

import numpy as np
import pytest
from PIL import Image

from gxdistill.errors import UserError
from gxdistill.tasks.mixup.patients import find_patients

SHAPE = (8, 6, 1)


def _write_slice(path, pixels, patient, number):
    pydicom = pytest.importorskip("pydicom")
    dataset = pydicom.Dataset()
    dataset.PatientID, dataset.InstanceNumber = patient, number
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.PhotometricInterpretation, dataset.SamplesPerPixel = "MONOCHROME2", 1
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = pixels.tobytes()
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    dataset.SOPInstanceUID = pydicom.uid.generate_uid()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)


def test_slices_of_dicom_stand_by_their_numbers_and_name_their_patient(tmp_path):
    slices = np.random.default_rng(0).integers(0, 256, (3, 8, 6), np.uint8)
    folder = tmp_path / "scan"
    folder.mkdir()
    for name, number in (("a", 2), ("b", 10), ("c", 1)):
        row = {1: 0, 2: 1, 10: 2}[number]
        _write_slice(folder / f"{name}.dcm", slices[row], "4711 ", number)
    (patient,) = find_patients([folder], SHAPE)
    np.testing.assert_array_equal(patient.slices, slices)
    assert patient.files == ("c", "a", "b")
    assert patient.names == ("scan", "4711")


def test_smaller_slices_are_put_amid_black(tmp_path):
    Image.fromarray(np.full((4, 6), 9, np.uint8)).save(tmp_path / "x.png")
    (patient,) = find_patients([tmp_path], SHAPE)
    assert patient.slices[0].tolist() == [[0] * 6] * 2 + [[9] * 6] * 4 + [[0] * 6] * 2


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "holds 0 files"),
        ({"a.png": b"no image"}, "a file cannot be read"),
        ({"a/x.png": b"", "b/a/y.png": b""}, "would both be written as a"),
    ],
)
def test_what_is_no_folder_of_slices_is_refused(tmp_path, files, reason):
    for name, content in files.items():
        tmp_path.joinpath(name).parent.mkdir(parents=True, exist_ok=True)
        tmp_path.joinpath(name).write_bytes(content)
    paths = [tmp_path, tmp_path / "b"] if "b/a/y.png" in files else [tmp_path]
    with pytest.raises(UserError, match=reason):
        find_patients(paths, SHAPE)
    with pytest.raises(UserError, match="is no folder"):
        find_patients([tmp_path / "missing"], SHAPE)
