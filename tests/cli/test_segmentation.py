"""The commands on a segmentation job, from a folder of tiles and masks to a page."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from gxdistill.cli import main
from gxdistill.data.batches.resident import Normalisation
from gxdistill.jobs import segmenters
from gxdistill.package import PatchGeometry
from gxdistill.package.segmenter import save_segmenter
from tests import small_jobs, toy
from tests.commands import refusal
from tests.segmenters import by_level

_SMALL = (
    "--config.segment.steps=4",
    "--config.segment.steps_per_call=2",
    "--config.segment.checkpoint_every=2",
    "--config.segment.batch=2",
    "--config.segment.flips=False",
    "--config.network.options=width=2,depth=1",
)


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    with toy.quick_compilation():
        yield


def _write_tiles(folder):
    """Violet discs on pink, in colours, of two sites; half for testing."""
    rng, rows = np.random.default_rng(0), []
    folder.mkdir()
    grid = np.mgrid[:40, :40]
    for i in range(6):
        middle = rng.integers(10, 30, (2, 1, 1))
        disc = np.square(grid - middle).sum(axis=0) < 64
        pixels = np.where(disc[..., None], (90, 40, 120), (230, 170, 200))
        noisy = (pixels + rng.normal(0, 8, pixels.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"t{i}.png")
        Image.fromarray(disc).save(folder / f"t{i}_mask.png")
        split = "train" if i < 4 else "test"
        rows.append({"id": f"t{i}", "patient": f"p{i}", "site": "ab"[i % 2], "split": split})
    with (folder / "tiles.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiles") / "cohort"
    _write_tiles(folder)
    return folder


@pytest.fixture(scope="module")
def done(tiles):
    """What the three commands of the guide leave behind."""
    flags = [
        "--config=segmentation:smoke",
        "--config.data.kind=manifest",
        f"--config.data.path={tiles}",
        "--config.data.manifest=tiles.csv",
        "--config.data.columns.image={id}.png",
        "--config.data.columns.mask={id}_mask.png",
        "--config.data.mask_classes=background,nucleus",
        "--config.data.colour=True",
        "--config.segment.augment=dihedral,stain",
        f"--workdir={tiles.parent / 'run'}",
        *_SMALL,
    ]
    for command in ("train", "evaluate", "report"):
        main.main(["segment", command, *flags])
    return tiles.parent / "run"


def test_a_folder_of_tiles_becomes_a_page(done):
    figures = json.loads((done / "segmentation.json").read_text())
    assert (figures["images"], sorted(figures["sites"])) == (2, ["a", "b"])
    page = (done / "report.html").read_text()
    assert "Nucleus segmented with a Dice of" in page
    assert page.count('class="views"') == 2
    assert "<script" not in page
    for name in ("t4", "t5"):
        assert f"{name}.png" in page


def test_other_tiles_are_segmented_by_the_package_alone(done, tiles, tmp_path, capsys):
    files = [str(tiles / name) for name in ("t0.png", "t5.png")]
    package = f"--package={done / 'segmenter.gxs'}"
    main.main(["segment", "predict", package, *files, f"--out={tmp_path / 'maps'}"])
    assert capsys.readouterr().out.startswith("t0.png: background ")
    assert np.asarray(Image.open(tmp_path / "maps/t5.png")).shape == (40, 40)


def test_what_is_missing_is_named(tmp_path):
    assert "--package is missing" in refusal("segment", "predict", "image.png")
    smoke = ("--config=segmentation:smoke", f"--workdir={tmp_path}")
    assert "segmenter.gxs" in refusal("segment", "evaluate", *smoke)
    assert "Run `gxdistill segment evaluate` first" in refusal("segment", "report", *smoke)
    assert "data.mask_classes is ()" in refusal(
        "segment", "train", *smoke, "--config.data.mask_classes=()"
    )


@pytest.mark.parametrize("command", ["check", "preview", "prepare"])
@pytest.mark.parametrize(
    ("flags", "what"),
    [([], "data.mask_classes is"), (["--config.data.colour=True"], "data.colour is True")],
)
def test_what_knows_grey_images_of_an_organ_alone_says_so(command, flags, what, tmp_path):
    smoke = ("--config=segmentation:smoke", f"--workdir={tmp_path}")
    assert what in refusal(command, *smoke, *flags)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_main_job_runs_on_images_whose_masks_a_segmenter_makes(tmp_path):
    """It has the patches that it has with masks: the organ, their right half, is the lighter."""
    summaries = []
    for masks in (True, False):
        cohort, run = tmp_path / f"cohort{masks}", tmp_path / f"run{masks}"
        small_jobs.write_cohort(cohort, masks=masks)
        for path in cohort.glob("?.png"):
            pixels = np.asarray(Image.open(path)) // 2
            pixels[:, 32:] += 128
            Image.fromarray(pixels).save(path)
        save_segmenter(tmp_path / "organ.gxs", _of_light())
        chosen = [] if masks else [f"--config.data.segmenter={tmp_path / 'organ.gxs'}"]
        main.main(
            [
                "distill",
                "--config=demo:smoke",
                "--config.data.kind=manifest",
                f"--config.data.path={cohort}",
                f"--workdir={run}",
                *chosen,
            ]
        )
        assert (run / "package.gxd").exists()
        summaries.append(json.loads((run / "cohort.json").read_text()))
    given, made = summaries
    assert made["masks"]
    assert made["patches"] == given["patches"]
    assert min(made["patches"]["train"].values()) > 0
    assert (given["reading"]["segmented"], made["reading"]["segmented"]) == (0, made["images"])


def _of_light():
    geometry = PatchGeometry(16, 12, True, 0.0, 0.0, 64, 64, 1, 1)
    return by_level(patch=geometry, normalisation=Normalisation((0.5,), (0.01,)))


def test_a_segmenter_is_handed_to_the_reader(tmp_path):
    save_segmenter(tmp_path / "organ.gxs", _of_light())
    image = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    np.testing.assert_array_equal(segmenters.read(tmp_path / "organ.gxs")(image), image >= 128)


def test_a_segmenter_of_colours_makes_no_organ_masks(done, tmp_path):
    small_jobs.write_cohort(tmp_path / "cohort", masks=False)
    said = refusal(
        "distill",
        "--config=demo:smoke",
        "--config.data.kind=manifest",
        f"--config.data.path={tmp_path / 'cohort'}",
        f"--config.data.segmenter={done / 'segmenter.gxs'}",
        f"--workdir={tmp_path / 'run'}",
    )
    assert "which segments images in colours" in said
