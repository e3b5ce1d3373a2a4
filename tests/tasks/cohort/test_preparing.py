import csv
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gxdistill import storage
from gxdistill.cli import main
from gxdistill.data.prepared import builder, parts, reader
from gxdistill.errors import UserError
from gxdistill.tasks.cohort import preparing
from tests import small_jobs

ROOT = Path(__file__).parents[3]
SECRET = "Doe_Jane"


@pytest.fixture(autouse=True)
def one_process_and_small_parts(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    monkeypatch.setattr(parts, "_PART_IMAGES", 3)


def _write(folder, **options):
    """A cohort of 12 images, each patient's name in their file's, and more in the manifest."""
    small_jobs.write_cohort(folder, ["train"] * 4 + ["test"] * 2, **options)
    path = folder / "manifest.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for i, row in enumerate(rows):
        row |= {"patient": f"{SECRET}_{i}", "site": f"St {SECRET} {i % 2}"}
        for field in ("image", "mask"):
            named = f"{SECRET}_{row[field]}"
            (folder / row[field]).rename(folder / named)
            row[field] = named
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return rows


def _job(source, workdir, said=None, **changes):
    given = {"data__kind": "manifest", "data__path": str(source), **changes}
    return small_jobs.make(workdir, [].append if said is None else said.append, **given)


def _read(place, workdir):
    return small_jobs.make(workdir, data__kind="prepared", data__path=str(place))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of files and a working folder where it was prepared, by two processes."""
    folder = tmp_path_factory.mktemp("preparing")
    _write(folder / "files")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
        patch.setattr(parts, "_PART_IMAGES", 3)
        place = preparing.prepare(_job(folder / "files", folder / "work"))
    return folder, place


def test_a_set_holds_the_cohort_that_a_job_would_read(made, tmp_path):
    folder, place = made
    direct, read = (
        _job(folder / "files", tmp_path / "direct").cohorts,
        _read(place, tmp_path).cohorts,
    )
    for mine, theirs in ((read.train, direct.train), (read.test, direct.test)):
        np.testing.assert_array_equal(mine.images, theirs.images)
        np.testing.assert_array_equal(mine.masks, theirs.masks)
        np.testing.assert_array_equal(mine.labels, theirs.labels)
        assert mine.class_names == theirs.class_names
    assert read.normalisation == direct.normalisation
    np.testing.assert_array_equal(read.tables["train"][:4], direct.tables["train"][:4])
    assert read.digest != direct.digest
    summary = json.loads((folder / "work/cohort.json").read_text())
    assert summary["images"] == 12
    assert summary["sites"] == {"site-0": 6, "site-1": 6}


def test_tensorflow_datasets_reads_it_without_tensorflow(made):
    code = (
        "import sys, tensorflow_datasets as tfds\n"
        "made = tfds.builder_from_directory(sys.argv[1])\n"
        "train = made.as_data_source('train')\n"
        "assert len(train) == 8 and len(made.as_data_source('test')) == 4\n"
        "assert train[0]['image'].shape == (64, 64, 1) and train[0]['mask'].dtype == bool\n"
        "assert [one['label'] for one in train] == [0, 1] * 4\n"
        "assert made.info.metadata['counts']['test']['patients'] == 4\n"
        "assert made.info.splits['train'].num_shards == 3\n"
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(made[1])], check=True)


def test_only_pixels_mask_label_code_and_pseudonym_pass(made):
    folder, place = made
    for path, content in small_jobs.content(place).items():
        assert SECRET.encode() not in content, path
    private = folder / "work/pseudonyms.json"
    assert private.stat().st_mode & 0o077 == 0
    salt = json.loads(private.read_text())["salt"].encode()
    assert all(salt not in content for content in small_jobs.content(place).values())
    patients = json.loads((place / "metadata.json").read_text())["columns"]["patient"]
    assert len({*patients["train"], *patients["test"]}) == 12


def test_what_is_prepared_is_not_prepared_again_and_a_change_makes_a_version(made, tmp_path):
    folder, place = made
    before, said = small_jobs.content(place), []
    assert preparing.prepare(_job(folder / "files", folder / "work", said)) == place
    assert any("prepared already" in line for line in said)
    again = preparing.prepare(_job(folder / "files", folder / "work", data__downscale=2))
    assert again.name == "1.0.1"
    assert small_jobs.content(place) == before
    images = _read(again.parent, tmp_path).cohorts.source.cohort.images  # the latest of several
    assert images.shape[1:3] == (32, 32)


def test_a_cohort_in_memory_is_prepared_too(tmp_path):
    job = small_jobs.make(tmp_path / "phantom")
    place = preparing.prepare(job)
    found = _read(place, tmp_path / "read").cohorts.train
    np.testing.assert_array_equal(found.images, job.cohorts.train.images)
    np.testing.assert_array_equal(found.masks, job.cohorts.train.masks)


def test_bad_and_double_images_are_quarantined_and_not_in_the_set(tmp_path):
    files = tmp_path / "files"
    rows = _write(files)
    (files / rows[0]["image"]).write_bytes(b"no image")
    image = Image.open(files / rows[2]["image"])
    image.save(files / rows[4]["image"])  # in another part of the same split
    job = _job(files, tmp_path / "work", data__max_bad_share=0.5)
    place = preparing.prepare(job)
    quarantine = (tmp_path / "work/quarantine.csv").read_text().splitlines()[1:]
    assert [line.split(",")[0] for line in quarantine] == [rows[0]["image"], rows[4]["image"]]
    found = _read(place, tmp_path / "read").cohorts.source.cohort
    assert len(found.images) == 10
    kept = [row["image"] for i, row in enumerate(rows) if i not in (0, 4)]
    expected = [np.asarray(Image.open(files / name)) for name in kept]
    np.testing.assert_array_equal(np.asarray(found.images)[..., 0], expected)
    about = json.loads((place / "metadata.json").read_text())
    assert about["quarantined"] == 2
    with pytest.raises(UserError, match=r"2 of 12 entries .* are bad"):
        preparing.prepare(_job(files, tmp_path / "strict", data__max_bad_share=0.1))


def test_an_interrupted_prepare_leaves_no_set_and_goes_on(made, tmp_path, monkeypatch):
    folder, place = made
    work = tmp_path / "work"
    work.mkdir()
    (work / "pseudonyms.json").write_bytes((folder / "work/pseudonyms.json").read_bytes())
    written, write_part = [], builder.write_part

    def write_two(part, to):
        if len(written) == 2:
            raise KeyboardInterrupt
        write_part(part, to)
        written.append(part)

    with monkeypatch.context() as patch:
        patch.setattr(builder, "write_part", write_two)
        with pytest.raises(KeyboardInterrupt):
            preparing.prepare(_job(folder / "files", work))
    assert not list(work.rglob("dataset_info.json"))
    inodes = {path.stat().st_ino for path in work.glob("prepared/parts/*/*.array_record")}
    assert len(inodes) == 2
    again = preparing.prepare(_job(folder / "files", work))
    assert inodes <= {path.stat().st_ino for path in again.iterdir()}  # not written once more
    assert small_jobs.content(again) == small_jobs.content(place)
    assert not (work / "prepared/parts").exists()


@pytest.mark.slow
def test_a_killed_prepare_is_finished_by_the_next_and_leaves_no_process(tmp_path):
    _write(tmp_path / "files")
    code = (
        "import sys\nfrom gxdistill.data.prepared import parts\nparts._PART_IMAGES = 2\n"
        "from gxdistill.cli import main\nif __name__ == '__main__': main.main(sys.argv[1:])"
    )
    script = tmp_path / "run.py"
    script.write_text(code)
    command = [sys.executable, str(script), "prepare", f"--config={ROOT}/configs/demo.py:smoke"]
    command += ["--config.data.kind=manifest", f"--config.data.path={tmp_path / 'files'}"]
    command += [f"--workdir={tmp_path / 'work'}"]
    staging = tmp_path / "work/prepared/parts"
    for wanted in (1, 3):
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list(staging.glob("*/account.json"))) < wanted:
            time.sleep(0.01)
        children = _children(process.pid)
        process.kill()
        process.wait()
        assert not list((tmp_path / "work").rglob("dataset_info.json"))
        until = time.monotonic() + 20  # One that still imports notices when it has done so.
        while left := [pid for pid in children if Path(f"/proc/{pid}").exists()]:
            assert time.monotonic() < until, left
            time.sleep(0.1)
    subprocess.run(command, cwd=ROOT, check=True)
    place = tmp_path / "work/prepared" / builder.NAME / "1.0.0"
    assert len(_read(place, tmp_path / "read").cohorts.source.cohort.images) == 12


@pytest.mark.slow
def test_a_whole_job_runs_on_a_prepared_set_as_a_stream(tmp_path):
    config = f"--config={ROOT}/configs/demo.py:smoke"
    main.main(["prepare", config, f"--workdir={tmp_path / 'set'}"])
    given = [config, "--config.data.kind=prepared", f"--config.data.path={tmp_path / 'set'}"]
    given += ["--config.data.feed=streaming", f"--workdir={tmp_path / 'run'}"]
    for command in ("distill", "evaluate", "report"):
        main.main([command, *given])
    figures = json.loads((tmp_path / "run/evaluation.json").read_text())
    assert figures["contenders"]["all_patches"]["balanced_patch_accuracy"]["mean"] > 0
    assert (tmp_path / "run/report.html").exists()


def _children(pid):
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [child for task in tasks for child in task.read_text().split()]


def test_nearly_equal_images_in_both_splits_are_named_and_refused(tmp_path):
    files = tmp_path / "files"
    rows = _write(files)
    image = np.asarray(Image.open(files / rows[0]["image"]), float)
    noise = np.random.default_rng(0).normal(0, 3, image.shape)
    noisy = (image + noise).clip(0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(files / rows[10]["image"])
    said = []
    preparing.prepare(_job(files, tmp_path / "warned", said))
    pair = f"{rows[0]['image']} and {rows[10]['image']}"
    assert any(f"nearly equal images in training and test: 1, as {pair}" in s for s in said)
    leaks = (tmp_path / "warned/leaks.csv").read_text().splitlines()
    assert leaks[1:] == [
        f"duplicate,{rows[0]['image']},{rows[10]['image']}",
        *(f"site,{row['site']},{row['site']}" for row in rows[:2]),
    ]
    job = _job(files, tmp_path / "refused", data__leaks={"duplicate": "refuse", "site": "allow"})
    with pytest.raises(UserError, match=r"nearly equal .* or set data\.leaks\.duplicate to 'warn'"):
        preparing.prepare(job)
    assert not list((tmp_path / "refused").rglob("dataset_info.json"))


def test_a_damaged_or_foreign_set_is_refused(made, tmp_path):
    place = made[1]
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in place.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    record = next(copy.glob("*train*"))
    content = bytearray(record.read_bytes())
    content[len(content) // 2] ^= 1
    record.write_bytes(content)
    with pytest.raises(UserError, match=r"is damaged: .*train.* has another SHA-256"):
        _ = _read(copy, tmp_path).cohorts.source
    record.unlink()
    with pytest.raises(UserError, match="is damaged"):
        _ = _read(copy, tmp_path).cohorts.source
    text = (copy / "metadata.json").read_text()
    (copy / "metadata.json").write_text(text.replace('"masks": true', '"masks": false'))
    with pytest.raises(UserError, match="was changed after it was written"):
        _ = _read(copy, tmp_path).cohorts.source
    with pytest.raises(UserError, match="holds no prepared set"):
        _ = _read(tmp_path / "nowhere", tmp_path).cohorts.source
    with pytest.raises(UserError, match="nothing to prepare"):
        preparing.prepare(_read(place, tmp_path))


def test_a_set_that_names_files_elsewhere_is_refused(made, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(made[1], copy)
    about = json.loads((copy / "metadata.json").read_text())
    files = {**about["files"], "../elsewhere": "0" * 64}
    storage.write_json(copy / "metadata.json", storage.seal({**about, "files": files}))
    with pytest.raises(UserError, match=r"'\.\./elsewhere' cannot be the name of a file"):
        _ = _read(copy, tmp_path).cohorts.source
    storage.write_json(copy / "metadata.json", about)
    info = (copy / "dataset_info.json").read_text()
    template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    assert template in info
    (copy / "dataset_info.json").write_text(info.replace(template, f"../elsewhere/{template}"))
    with pytest.raises(UserError, match="its split 'train' is of other files than its own"):
        _ = _read(copy, tmp_path).cohorts.source


def test_without_the_library_it_is_named(made, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(UserError, match="pip install tensorflow-datasets"):
        _ = _read(made[1], tmp_path).cohorts.source


def test_other_sets_and_hidden_ones_beside_it_are_passed_over(tmp_path):
    small_jobs.write_cohort(tmp_path / "files")
    place = preparing.prepare(_job(tmp_path / "files", tmp_path / "work"))
    for other in ("work/other_set/9.0.0", "work/prepared/.Trash/gxdistill_cohort/9.0.0"):
        (tmp_path / other).mkdir(parents=True)
        (tmp_path / other / "dataset_info.json").write_text("{}")
    assert reader.find_version(tmp_path / "work") == place
