"""Patients as the client reads them: folders of slices, or of DICOM files."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gxdistill import storage
from gxdistill.data.files import folders, grey, images
from gxdistill.data.files.grey import BadEntryError
from gxdistill.errors import UserError

_MAX_SLICES = 4096


class Patient(NamedTuple):
    """A patient's slices as they were read.

    Attributes:
      folder: name of the patient's folder.
      names: all that names the patient.
      files: name of each slice's file.
      slices: `[S, H, W]` uint8.
    """

    folder: str
    names: tuple[str, ...]
    files: tuple[str, ...]
    slices: np.ndarray


class Segmented(NamedTuple):
    """What became of a patient.

    Attributes:
      patient: as read.
      mixture: of the last mixing, `[S, H, W]` float.
      masks: class of each pixel, `[S, H, W]` uint8.
      cost: of all mixings of the patient, see `mixing.exposure`.
    """

    patient: Patient
    mixture: np.ndarray
    masks: np.ndarray
    cost: float


def find_patients(paths: Sequence[Path], shape: tuple[int, int, int]) -> list[Patient]:
    """Reads patients, each a folder of slices, or of DICOM files in their own order.

    Args:
      paths: folders of slices, or of such folders.
      shape: `(H, W, C)` of the slices that are sent; smaller ones are put amid black.

    Raises:
      UserError: a folder has no slices, one cannot be read or is too large, or two patients' files
        would be of one name.
    """
    folder_of: dict[str, Path] = {}
    for path in paths:
        if not path.is_dir():
            raise UserError(f"{path} is no folder. Name folders, one a patient.")
        inner = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
        for folder in inner or [path]:
            if folder.name in folder_of:
                raise UserError(
                    f"{folder} and {folder_of[folder.name]} would both be written as "
                    f"{folder.name}. Rename one."
                )
            folder_of[folder.name] = folder
    return [_read_patient(name, folder, shape) for name, folder in folder_of.items()]


def _read_patient(name: str, folder: Path, shape: tuple[int, int, int]) -> Patient:
    files, _ = folders.list_files(folder)
    if not 0 < len(files) <= _MAX_SLICES:
        raise UserError(f"{folder} holds {len(files)} files; 1 to {_MAX_SLICES} slices are read.")
    storage.plain_name(name)
    try:
        with images.quiet():
            placed = [(*images.read_place(file), file) for file in files]
            files = [file for *_, file in sorted(placed, key=lambda row: (row[1], row[2]))]
            pixels = [_fit(images.read_image(file).pixels, shape) for file in files]
    except BadEntryError as error:
        raise UserError(f"{folder}: a file cannot be read: {error}") from error
    names = (name, *sorted({patient for patient, *_ in placed if patient}))
    return Patient(name, names, tuple(file.stem for file in files), np.stack(pixels))


def _fit(pixels: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    if pixels.shape[0] > shape[0] or pixels.shape[1] > shape[1]:
        raise BadEntryError(
            f"it is of {pixels.shape[0]}x{pixels.shape[1]} pixels, and slices of up to "
            f"{shape[0]}x{shape[1]} are segmented; cut out that region first"
        )
    return grey.pad(pixels, shape[:2])
