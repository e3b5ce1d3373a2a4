"""Bad input through the command line: one clear line, exit status 1, nothing half written."""

import csv
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian

from gxdistill import package
from gxdistill.cli import main
from gxdistill.pytrees import Distilled
from tests.stderr import without_jax_start

CONFIG = """
from gxdistill.tasks.distillation.settings import default_config

def get_config(variant="full"):
    config = default_config()
    config.data.path = {folder!r}
    config.data.max_bad_share = 0.0
    config.patch.size = 16
    config.patch.stride = 8
    config.network.options = {{"width": 4, "depth": 2}}
    return config
"""
SIDE = 48
MANIFEST = {
    "name": "sent",
    "purpose": "Tests.",
    "licence": "CC0 & <none>.",
    "cohort": None,
    "network": {"name": "convnet", "options": {"width": 4, "depth": 2}},
    "init": {"rule": "random", "seed": None},
    "distillation": {
        "steps": 2,
        "epochs": 2,
        "images_per_step": 3,
        "label_rule": "raw",
        "loss": "cross_entropy",
        "started_from": "noise",
        "inner": {"name": "sgd"},
        "augmentations": [],
        "outer_steps": 1,
        "settings": {},
    },
    "patch": {
        "size": 8,
        "stride": 8,
        "border": False,
        "irrelevant_below": 0.01,
        "inside_above": 0.85,
        "image_height": 64,
        "image_width": 64,
        "channels": 1,
        "downscale": 1,
    },
    "image_normalisation": "cohort",
    "normalisation": {"mean": [0.5], "std": [0.2]},
    "class_names": ["irrelevant", "non-gastritis", "gastritis"],
    "precision": "float32",
    "proof": None,
    "reading": None,
    "decision": {
        "rule": "counts",
        "weights": [],
        "tau": 0.5,
        "share_positive": None,
        "networks": 1,
    },
    "likeness": None,
    "ledger": None,
    "results": {},
    "privacy": "No guarantee.",
}


def _rows(folder):
    with (folder / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def _write_rows(folder, rows):
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def cohort(tmp_path):
    """A sound cohort of eight images, with its config beside it."""
    folder = tmp_path / "cohort"
    folder.mkdir()
    rng = np.random.default_rng(0)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[:, 20:] = 255
    rows = []
    for i in range(8):
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE), np.uint8)).save(folder / f"{i}.png")
        Image.fromarray(mask).save(folder / f"mask{i}.png")
        split = "train" if i < 4 else "test"
        row = {"image": f"{i}.png", "mask": f"mask{i}.png", "label": i % 2}
        rows.append({**row, "patient": f"p{i}", "split": split})
    _write_rows(folder, rows)
    (tmp_path / "config.py").write_text(CONFIG.format(folder=str(folder)))
    return folder


def _fails(capsys, *arguments):
    """Runs a command that must fail; returns its one line."""
    with pytest.raises(SystemExit) as stop:
        main.main(list(map(str, arguments)))
    line = stop.value.code
    assert isinstance(line, str), line  # text: printed on stderr, with exit status 1
    assert "\n" not in line
    assert "Traceback" not in capsys.readouterr().err
    return line


def _leftovers(workdir):
    if not workdir.is_dir():
        return []
    names = {path.relative_to(workdir).as_posix() for path in workdir.rglob("*")}
    return sorted(names - {"quarantine.csv", "cohort.json"})


def _no_mask_file(folder):
    (folder / "mask3.png").unlink()


def _no_mask_named(folder):
    rows = _rows(folder)
    rows[3]["mask"] = ""
    _write_rows(folder, rows)


def _small_mask(folder):
    Image.new("L", (SIDE - 1, SIDE), 255).save(folder / "mask3.png")


def _empty_mask(folder):
    Image.new("L", (SIDE, SIDE)).save(folder / "mask3.png")


def _truncated_png(folder):
    whole = (folder / "3.png").read_bytes()
    (folder / "3.png").write_bytes(whole[: len(whole) // 2])


def _other_size(folder):
    pixels = np.arange(SIDE * (SIDE + 8), dtype=np.uint8).reshape(SIDE, SIDE + 8)
    Image.fromarray(pixels).save(folder / "3.png")
    Image.new("L", (SIDE + 8, SIDE), 255).save(folder / "mask3.png")


def _truncated_dicom(folder):
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    dataset.PhotometricInterpretation, dataset.SamplesPerPixel = "MONOCHROME2", 1
    dataset.Rows = dataset.Columns = SIDE
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = bytes(range(256)) * (SIDE * SIDE // 256)
    dataset.save_as(folder / "3.dcm", enforce_file_format=True)
    whole = (folder / "3.dcm").read_bytes()
    (folder / "3.dcm").write_bytes(whole[:-500])
    rows = _rows(folder)
    rows[3]["image"] = "3.dcm"
    _write_rows(folder, rows)


def _nan_tiff(folder):
    pixels = np.full((SIDE, SIDE), np.nan, np.float32)
    Image.fromarray(pixels).save(folder / "3.tif")
    rows = _rows(folder)
    rows[3]["image"] = "3.tif"
    _write_rows(folder, rows)


def _duplicate(folder):
    (folder / "3.png").write_bytes((folder / "1.png").read_bytes())


def _outside_path(folder):
    rows = _rows(folder)
    rows[3]["image"] = "../cohort/3.png"
    _write_rows(folder, rows)


def _unknown_label(folder):
    rows = _rows(folder)
    rows[3]["label"] = "perhaps"
    _write_rows(folder, rows)


def _empty_class(folder):
    _write_rows(folder, [{**row, "label": 0} for row in _rows(folder)])


def _patient_twice(folder):
    rows = _rows(folder)
    rows[7]["patient"] = "p1"
    _write_rows(folder, rows)


def _no_column(folder):
    _write_rows(folder, [{k: v for k, v in r.items() if k != "patient"} for r in _rows(folder)])


def _no_manifest(folder):
    (folder / "manifest.csv").unlink()


def _unknown_split(folder):
    rows = _rows(folder)
    rows[3]["split"] = "holdout"
    _write_rows(folder, rows)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (_no_mask_file, "mask: file missing"),
        (_no_mask_named, "mask missing"),
        (_small_mask, "mask"),
        (_empty_mask, "mask"),
        (_truncated_png, r"3\.png"),
        (_other_size, r"3\.png"),
        (_truncated_dicom, r"3\.dcm"),
        (_nan_tiff, r"3\.tif"),
        (_duplicate, r"3\.png"),
        (_outside_path, r"3\.png"),
        (_unknown_label, "perhaps"),
        (_empty_class, "gastritis"),
        (_patient_twice, "p1"),
        (_no_column, "patient"),
        (_no_manifest, r"manifest\.csv"),
        (_unknown_split, "holdout"),
    ],
)
def test_a_bad_cohort_stops_the_job(harm, reason, cohort, tmp_path, capsys):
    harm(cohort)
    workdir = tmp_path / "run"
    config = f"--config={tmp_path}/config.py"
    line = _fails(capsys, "distill", config, f"--workdir={workdir}")
    assert re.search(reason, line), line
    assert _leftovers(workdir) == []


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("patch.size=64", "patch.size is 64, which does not fit in images of 48x48 px"),
        ("patch.stride=0", "stride"),
        ("patch.inside_above=0.005", "irrelevant_below"),
        ("patch.size=40", "none passes the area rule"),
        ("network.name=lenett", "lenett"),
        ("network.options.width=0", "width"),
        ("network.options.depth=9", "too small"),
        ("distill.steps_per_call=7", "multiple"),
        ("distill.init=knwon", "knwon"),
        ("distill.started_from=dreams", "dreams"),
        ("distill.label_rule=hard", "hard"),
        ("distill.start_lr=-1.0", "-1"),
        ("distill.batch=0", "batch"),
        ("distill.optimizer.images_lr=-1.0", "images_lr"),
        ("distill.networks=0", "networks"),
        ("data.kind=films", "films"),
        ("data.downscale=5", "downscale"),
        ("data.test_share=2.0", "test_share"),
        ("distil.steps=3", "--config.distill.steps"),
        ("distill.steps=many", "many"),
    ],
)
@pytest.mark.usefixtures("cohort")
def test_a_bad_setting_is_refused(setting, reason, tmp_path, capsys):
    workdir = tmp_path / "run"
    config = (f"--config={tmp_path}/config.py", f"--config.{setting}")
    line = _fails(capsys, "distill", *config, f"--workdir={workdir}")
    assert reason in line
    assert _leftovers(workdir) == []


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("distil",), "Did you mean 'distill'?"),
        (("prepare",), "--config is missing"),
        (("prepare", "--config=nowhere.py"), "nowhere.py"),
        (("prepare", "--confg=3"), "confg"),
        (("prepare", "more"), "'more'"),
        (("train", "--seeds=0"), "seeds"),
        (("train", "--package=nowhere"), "nowhere"),
        (("inspect",), "name just PACKAGE"),
        (("verify", "nowhere"), "nowhere"),
        (("report", "--workdir=nowhere"), "nowhere"),
    ],
)
def test_a_wrong_command_is_refused(arguments, reason, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert reason in _fails(capsys, *arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("cohort")
def test_a_workdir_that_cannot_be_written_is_named(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    config = f"--config={tmp_path}/config.py"
    line = _fails(capsys, "prepare", config, f"--workdir={tmp_path}/file/run")
    assert "file" in line
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.usefixtures("cohort")
def test_a_full_disk_leaves_nothing_half_written(tmp_path):
    code = (
        # The kernel lets no file grow past 16 bytes.
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (16, 16)); "
        "from gxdistill.cli.main import main; main(sys.argv[1:])"
    )
    arguments = ("prepare", f"--config={tmp_path}/config.py", f"--workdir={tmp_path}/run")
    done = subprocess.run(
        [sys.executable, "-B", "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("could not be written") == 1
    assert "Traceback" not in without_jax_start(done.stderr)
    assert _leftovers(tmp_path / "run") == []


@pytest.fixture
def sent(tmp_path):
    """A whole package, made without training."""
    distilled = Distilled(
        np.zeros((2, 3, 8, 8, 1), np.float32),
        np.zeros((2, 3, 3), np.float32),
        np.zeros(4, np.float32),
    )
    manifest = package.from_json(package.Manifest, MANIFEST)
    package.save(tmp_path / "package.gxd", package.Package(distilled, manifest))
    return tmp_path / "package.gxd"


def test_a_tampered_package_is_refused(sent, capsys):
    main.main(["verify", str(sent)])
    assert ": whole: no part was damaged" in capsys.readouterr().out
    content = bytearray(sent.read_bytes())
    content[len(content) // 2] ^= 1
    sent.write_bytes(content)
    for command in ("verify", "inspect"):
        assert str(sent) in _fails(capsys, command, sent)


def test_an_edited_manifest_is_refused(sent, capsys):
    content = sent.read_bytes()
    assert b'"tau": 0.5' in content
    sent.write_bytes(content.replace(b'"tau": 0.5', b'"tau": 0.1'))
    assert "was damaged or changed" in _fails(capsys, "verify", sent)
