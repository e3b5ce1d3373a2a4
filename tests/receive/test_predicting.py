import csv
import json
import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from gxdistill import data, package
from gxdistill.cli import main
from gxdistill.data import intensities
from gxdistill.data.files.grey import shrink
from gxdistill.errors import UserError
from gxdistill.evaluation import decision, zones
from gxdistill.patching import patch_corners
from gxdistill.receive import networks, predicting
from gxdistill.tasks.distillation import distilling
from tests import small_jobs
from tests.packages import change


@pytest.fixture(scope="module")
def cohort(run, tmp_path_factory):
    """Images of the size that the run's package knows, as files, and as the package reads them."""
    patch = package.load(run / "package.gxd").manifest.patch
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    factor = patch.downscale
    side = (patch.image_height * factor, patch.image_width * factor)
    pixels = {}
    for name, grain in (("a.png", 8), ("deep/b.tif", 1), ("deep/=c.png", 3)):
        coarse = rng.integers(0, 256, [-(-length // grain) for length in side], np.uint8)
        image = coarse.repeat(grain, 0).repeat(grain, 1)[: side[0], : side[1]]
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / name)
        pixels[name] = shrink(image, factor)
    return folder, pixels


def _expected(run, pixels):
    """Patch after patch in a loop: cut, normalised, predicted, decided."""
    trained = networks.train_networks(run / "package.gxd")
    manifest = package.load(run / "package.gxd").manifest
    patch = manifest.patch
    mean, std = (np.array(values, np.float32) for values in manifest.normalisation)
    params = jax.tree.map(lambda leaf: leaf[0], trained.params)
    apply, size = jax.jit(trained.network.apply), patch.size
    starts = [list(range(0, side - size + 1, patch.stride)) for side in pixels.shape]
    for places, side in zip(starts, pixels.shape, strict=True):
        if patch.border and places[-1] != side - size:
            places.append(side - size)
    rows = []
    for row in starts[0]:
        for col in starts[1]:
            one = pixels[None, row : row + size, col : col + size, None] / np.float32(255)
            logits = apply(params, (one - mean) / std)
            rows.append(np.asarray(jax.nn.softmax(logits))[0])
    return np.stack(rows)


def test_images_are_decided_by_the_zones_of_a_package(run, cohort, tmp_path):
    folder, pixels = cohort
    weights = tuple(np.random.default_rng(1).normal(size=13).tolist())
    content, path = package.load(run / "package.gxd"), tmp_path / "p.gxd"
    package.save(path, change(content, "decision", rule="zones", weights=weights, tau=0.5))
    rows = predicting.predict(path, [folder], tmp_path / "out", print)
    patch = content.manifest.patch
    for row in rows:
        image = pixels[row["image"]]
        corners = patch_corners(image.shape, patch.size, patch.stride, border=patch.border)
        (odds,) = zones.log_odds(_expected(run, image)[None], corners)
        assert row["undecidable"] == np.isnan(odds).any()
        if not row["undecidable"]:
            chance = 1 / (1 + np.exp(-odds @ weights[:12] - weights[12]))
            assert row["score"] == pytest.approx(chance, abs=1e-5)
            assert row["decision"] == content.manifest.class_names[-1 if chance >= 0.5 else -2]
    assert not all(row["undecidable"] for row in rows)


def test_each_image_is_decided_as_a_loop_over_its_patches_decides(run, cohort, tmp_path):
    folder, pixels = cohort
    rows = predicting.predict(run / "package.gxd", [folder], tmp_path / "out", print)
    manifest = package.load(run / "package.gxd").manifest
    rule, tau = manifest.decision.rule, manifest.decision.tau
    assert [row["image"] for row in rows] == sorted(pixels)
    for row in rows:
        probabilities = _expected(run, pixels[row["image"]])
        score = decision.score(rule, probabilities[None])[0]
        assert row["undecidable"] == np.isnan(score)
        if not np.isnan(score):
            assert row["score"] == pytest.approx(score, abs=1e-5)
            assert row["decision"] == manifest.class_names[-1 if score >= tau else -2]
        counts = np.bincount(probabilities.argmax(-1), minlength=3)
        told = [row[f"patches {name}"] for name in manifest.class_names]
        assert told == counts.tolist()
        with Image.open(tmp_path / "out" / row["heat_map"]) as picture:
            assert picture.text["Comment"] == package.WARNING
            assert np.asarray(picture).std() > 5


def test_the_size_of_a_batch_changes_nothing(run, cohort, tmp_path, monkeypatch):
    folder, _ = cohort
    whole = predicting.predict(run / "package.gxd", [folder / "a.png"], tmp_path / "a", print)
    monkeypatch.setattr(predicting, "_CACHED", 1)
    single = predicting.predict(run / "package.gxd", [folder / "a.png"], tmp_path / "b", print)
    score = whole[0].pop("score")
    assert single[0].pop("score") == (score if score is None else pytest.approx(score, abs=1e-5))
    assert single == whole


def test_tables_say_the_same_and_what_this_is_not(run, cohort, tmp_path):
    rows = predicting.predict(run / "package.gxd", [cohort[0]], tmp_path / "out", print)
    found = json.loads((tmp_path / "out/predictions.json").read_text())
    assert found == {
        "note": "For research only: this is not a medical device.",
        "package": package.digest(run / "package.gxd"),
        "images": rows,
        "tau": package.load(run / "package.gxd").manifest.decision.tau,
        "tau_by": "sender",
        "warnings": found["warnings"],
        "guarantee": "no formal guarantee",
    }
    with (tmp_path / "out/predictions.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert {line["tau_by"] for line in table} == {"sender"}
    assert [line["decision"] for line in table] == [row["decision"] for row in rows]
    assert {line["note"] for line in table} == {found["note"]}
    # No spreadsheet may take a name for a formula.
    predicting.predict(run / "package.gxd", [cohort[0] / "deep"], tmp_path / "deep", print)
    text = (tmp_path / "deep/predictions.csv").read_text()
    assert "\n'=c.png," in text
    files = {*os.listdir(tmp_path / "out")}
    assert files == {"predictions.json", "predictions.csv", *(row["heat_map"] for row in rows)}


def _phantoms(folder, change):
    """Images of the sender's kind, of other patients, changed."""
    folder.mkdir()
    for i, image in enumerate(data.phantom_cohort(11, patients=20, size=128).images):
        Image.fromarray(change(image[..., 0])).save(folder / f"{i:02}.png")
    return folder


def _blind(run, path):
    """The run's package with a threshold that calls everything positive."""
    package.save(path, change(package.load(run / "package.gxd"), "decision", tau=-1.0))
    return path


def test_images_of_another_kind_are_told_and_so_is_what_is_decided_alike(run, tmp_path):
    path, said = run / "package.gxd", []
    same = _phantoms(tmp_path / "same", lambda image: image)
    predicting.predict(path, [same], tmp_path / "a", said.append)
    assert [line for line in said if line.startswith("warning: ")] == []
    assert json.loads((tmp_path / "a/predictions.json").read_text())["warnings"] == []

    inverted = _phantoms(tmp_path / "inverted", lambda image: 255 - image)
    rows = predicting.predict(path, [inverted], tmp_path / "b", said.append)
    warnings = json.loads((tmp_path / "b/predictions.json").read_text())["warnings"]
    assert [line for line in said if line.startswith("warning: ")] == [
        f"warning: {sentence}" for sentence in warnings
    ]
    kinds = [line for line in warnings if line.endswith("Decisions may not hold.")]
    assert len(kinds) == 3
    decided = {row["decision"] for row in rows if not row["undecidable"]}
    assert (len(warnings) == 4) == (len(decided) == 1)

    predicting.predict(_blind(run, tmp_path / "p.gxd"), [same], tmp_path / "c", said.append)
    (sentence,) = json.loads((tmp_path / "c/predictions.json").read_text())["warnings"]
    assert sentence.startswith("All your images are decided alike.")


def test_a_package_that_says_nothing_of_its_images_warns_of_none(run, tmp_path):
    path = tmp_path / "p.gxd"
    package.save(path, change(package.load(run / "package.gxd"), likeness=None))
    image = _phantoms(tmp_path / "inverted", lambda image: 255 - image) / "00.png"
    predicting.predict(path, [image], tmp_path / "out", print)
    assert json.loads((tmp_path / "out/predictions.json").read_text())["warnings"] == []


def test_images_that_do_not_fit_are_refused_by_name(run, cohort, tmp_path, capsys):
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(tmp_path / "small.png")
    (tmp_path / "text.png").write_text("x")
    images = [str(cohort[0] / "a.png"), *(str(tmp_path / f"{x}.png") for x in ("small", "text"))]
    with pytest.raises(SystemExit, match="some images were refused"):
        main.main(["predict", str(run / "package.gxd"), *images, f"--out={tmp_path / 'out'}"])
    said = capsys.readouterr().out.splitlines()
    patch = package.load(run / "package.gxd").manifest.patch
    side = patch.image_height * patch.downscale
    assert said[1] == f"small.png: refused: image is 20x30 px, not {side}x{side} px"
    assert said[2].startswith("text.png: refused: not a readable")
    assert said[-1] == package.WARNING
    rows = json.loads((tmp_path / "out/predictions.json").read_text())["images"]
    assert ["refused" in row for row in rows] == [False, True, True]
    with pytest.raises(UserError, match=r"No image fits .*; small\.png: image is 20x30 px, not"):
        predicting.predict(run / "package.gxd", [tmp_path / "small.png"], tmp_path / "none", print)
    assert not (tmp_path / "none").exists()


def test_images_are_normalised_by_the_organ_that_a_mask_shows(run, cohort, tmp_path):
    folder, pixels = cohort
    content = package.load(run / "package.gxd")
    path = tmp_path / "organ.gxd"
    package.save(path, change(content, image_normalisation="organ_histogram"))
    with pytest.raises(UserError, match=r"needs a mask\. Name their folder as --masks=FOLDER"):
        predicting.predict(path, [folder], tmp_path / "out", print)
    patch = content.manifest.patch
    mask = np.zeros((patch.image_height, patch.image_width), bool)
    mask[10:40, 5:30] = True
    masks = tmp_path / "masks/deep"
    masks.mkdir(parents=True)
    factor = patch.downscale
    Image.fromarray(mask.repeat(factor, 0).repeat(factor, 1)).save(masks.parent / "a.tif")
    rows = predicting.predict(path, [folder], tmp_path / "out", print, masks=tmp_path / "masks")
    assert ["refused" in row for row in rows] == [False, True, True]
    assert rows[1]["refused"].startswith("mask missing")
    grey = intensities.normalise(pixels["a.png"], mask, "organ_histogram")
    score = decision.score(content.manifest.decision.rule, _expected(run, grey)[None])[0]
    assert rows[0]["undecidable"] == np.isnan(score)
    assert np.isnan(score) or rows[0]["score"] == pytest.approx(score, abs=1e-5)
    Image.fromarray(mask).save(masks.parent / "a.png")
    with pytest.raises(UserError, match=r"would both be the mask of a\. Keep one"):
        predicting.predict(path, [folder], tmp_path / "two", print, masks=tmp_path / "masks")


def test_hidden_folders_are_passed_over_and_told(run, cohort, tmp_path):
    (tmp_path / "in/.ipynb_checkpoints").mkdir(parents=True)
    whole = (cohort[0] / "a.png").read_bytes()
    for name in ("a.png", ".ipynb_checkpoints/a-checkpoint.png", "Thumbs.db"):
        (tmp_path / "in" / name).write_bytes(whole)
    said = []
    rows = predicting.predict(run / "package.gxd", [tmp_path / "in"], tmp_path / "out", said.append)
    assert [row["image"] for row in rows] == ["a.png"]
    assert f"note: 2 hidden or system entries of {tmp_path / 'in'} are passed over" in said


def test_what_cannot_be_done_is_told(run, cohort, tmp_path):
    (tmp_path / "empty").mkdir()
    for paths, out, reason in (
        ([tmp_path / "empty"], "out", "There is no file in"),
        ([cohort[0]], "empty", "exists already"),
    ):
        with pytest.raises(UserError, match=reason):
            predicting.predict(run / "package.gxd", paths, tmp_path / out, print)
    undecided = change(package.load(run / "package.gxd"), decision=None)
    package.save(tmp_path / "p.gxd", undecided)
    with pytest.raises(UserError, match="decides no whole images, only patches"):
        predicting.predict(tmp_path / "p.gxd", [cohort[0]], tmp_path / "out", print)


@pytest.mark.slow
def test_a_package_for_fresh_networks_decides_by_as_many_as_it_says(tmp_path, cohort):
    job = small_jobs.make(tmp_path / "run", distill__init="random", evaluate__networks=2)
    path = distilling.distil(job)
    manifest = package.load(path).manifest
    assert manifest.decision.networks == 2
    rows = predicting.predict(path, [cohort[0] / "a.png"], tmp_path / "out", print)
    pair = networks.train_networks(path, count=2)
    both = [
        predicting.of_patches(
            pair._replace(params=jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], pair.params)),
            predicting.patch_grid(manifest),
            cohort[1]["a.png"][..., None],
        )
        for i in range(2)
    ]
    expected = decision.score(manifest.decision.rule, np.mean(both, axis=0)[None])[0]
    assert rows[0]["score"] == (None if np.isnan(expected) else pytest.approx(expected, abs=1e-5))


def test_predictions_of_a_file_whose_name_is_no_text_are_kept_and_told(run, cohort, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    try:
        shutil.copy(cohort[0] / "a.png", os.fsencode(folder) + b"/scan\xff.png")
    except OSError:
        pytest.skip("this file system takes names of UTF-8 only")
    command = [sys.executable, "-m", "gxdistill", "predict", str(run / "package.gxd"), str(folder)]
    environment = os.environ | {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    told = subprocess.run(
        [*command, f"--out={tmp_path / 'out'}"], capture_output=True, env=environment, check=False
    )
    assert told.returncode == 0, told.stderr
    assert rb"scan\xff.png" in told.stdout
    (row,) = json.loads((tmp_path / "out/predictions.json").read_text("utf-8"))["images"]
    assert os.fsencode(row["image"]) == b"scan\xff.png"
    assert r"scan\xff.png" in (tmp_path / "out/predictions.csv").read_text("utf-8")
