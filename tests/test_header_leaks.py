"""What stands in the headers of DICOM files stays there: no output of a job holds it."""

import base64
import csv
import re

import numpy as np
import pytest
from PIL import Image

from gxdistill import package, report
from gxdistill.receive import networks, predicting
from gxdistill.tasks.cohort import preparing, previewing
from gxdistill.tasks.distillation import assessing, distilling
from tests import small_jobs
from tests.data.conftest import write_dicom

pydicom = pytest.importorskip("pydicom", reason="needs the extra `dicom`")

NAME = "ZQXDOE JANE"
# Of the texts, these alone say how the pixels are to be read.
USED = {"PhotometricInterpretation", "SpecificCharacterSet", "VOILUTFunction"}
TEXTS = {"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"}


def _plant(path):
    """Puts a name into every text element that DICOM knows, and wherever else a file has room."""
    from pydicom import datadict

    dataset = pydicom.dcmread(path)
    for tag, (vr, _, _, _, keyword) in datadict.DicomDictionary.items():
        if vr in TEXTS and keyword not in USED and tag >> 16 > 2:
            dataset.add_new(tag, vr, NAME)
    item = pydicom.Dataset()
    item.PatientName = item.OtherPatientNames = NAME
    dataset.RequestAttributesSequence = [item]
    dataset.private_block(0x0009, NAME, create=True).add_new(1, "UN", NAME.encode() + b" ")
    dataset.DataSetTrailingPadding = NAME.encode() + b" "
    dataset.file_meta.SourceApplicationEntityTitle = NAME
    dataset.file_meta.ImplementationVersionName = NAME
    dataset.preamble = NAME.encode().ljust(128, b"\0")
    dataset.save_as(path, enforce_file_format=True)
    assert path.read_bytes().count(NAME.encode()) > 1000


def _write_cohort(folder):
    small_jobs.write_cohort(folder, ["train"] * 3 + ["test"] * 2)
    with (folder / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        pixels = np.asarray(Image.open(folder / row["image"]))
        row["image"] = row["image"].replace(".png", ".dcm")
        write_dicom(folder / row["image"], pixels, PatientName=NAME)
        _plant(folder / row["image"])
    # One that is quarantined: its reason must not quote it.
    (folder / rows[0]["image"]).write_bytes((folder / rows[0]["image"]).read_bytes()[:-1000])
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _run(folder, workdir, log):
    options = {"data__path": str(folder), "data__max_bad_share": 0.2}
    job = small_jobs.make(workdir, log, data__kind="manifest", **options)
    preparing.prepare(job)
    path = distilling.distil(job)
    trained = networks.train_networks(path, count=None)
    networks.save_networks(workdir / "networks", trained)
    assessing.evaluate_package(job, path, trained, [])
    report.write(workdir, path)
    previewing.write(job)
    predicting.predict(path, [folder / "3.dcm"], workdir / "predictions", log)
    for kind in package.FORMATS:
        package.export(package.load(path), workdir / f"export.{kind}", kind)


def _holds_name(content):
    """Also in the pictures of a page, which are in base 64."""
    pictures = [base64.b64decode(text) for text in re.findall(rb"base64,([\w+/=]+)", content)]
    wanted = NAME.encode(), NAME.encode("utf-16-le"), base64.b64encode(NAME.encode())[:12]
    return any(name in part for part in (content, *pictures) for name in (*wanted, b"ZQXDOE"))


def test_no_text_of_a_header_is_in_any_output(tmp_path, capfd, caplog):
    said = []
    _write_cohort(tmp_path / "files")
    _run(tmp_path / "files", tmp_path / "work", said.append)
    assert _holds_name((tmp_path / "files/3.dcm").read_bytes())
    written = small_jobs.content(tmp_path / "work")
    for name in ("package.gxd", "report.html", "preview.html", "quarantine.csv", "cohort.json"):
        assert name in written
    for part in ("checkpoints/", "prepared/", "predictions/", "networks/"):
        assert any(name.startswith(part) for name in written), part
    assert "0.dcm" in written["quarantine.csv"].decode()
    assert [name for name, content in written.items() if _holds_name(content)] == []
    out = "".join([*said, caplog.text, *capfd.readouterr()])
    assert not _holds_name(out.encode())
