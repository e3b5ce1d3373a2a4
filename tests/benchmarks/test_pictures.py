import dataclasses

import numpy as np
import pytest
from PIL import Image

from benchmarks import pictures
from benchmarks.record import ROOT
from gxdistill.errors import UserError
from gxdistill.report.findings import gather


def test_the_pictures_of_the_readme_are_small():
    paths = sorted((ROOT / "docs/images").glob("*.png"))
    assert [path.stem for path in paths] == ["distilled", "heat_map"]
    assert sum(path.stat().st_size for path in paths) <= 150_000


def test_both_pictures_are_drawn_from_a_run(run, tmp_path):
    pictures.main([str(run), f"--out={tmp_path}"])
    steps, per_step = gather(run, run / "package.gxd").package.distilled.images.shape[:2]
    with Image.open(tmp_path / "distilled.png") as sheet:  # tiles of 64 px, 8 px between
        assert sheet.size == (72 * steps - 8, 72 * per_step - 8)
    with Image.open(tmp_path / "heat_map.png") as pair:
        pixels = np.asarray(pair.convert("RGB"), int)
    side = len(pixels)
    assert pixels.shape == (side, 2 * side + 8, 3)
    phantom, coloured = pixels[:, :side], pixels[:, -side:]
    assert np.abs(np.ptp(phantom, axis=-1)).mean() < np.abs(np.ptp(coloured, axis=-1)).mean()


def test_images_that_are_no_phantoms_are_refused(run):
    findings = gather(run, run / "package.gxd")
    names = np.array(["p001"] * len(findings.heatmaps["names"]))
    findings = dataclasses.replace(findings, heatmaps={**findings.heatmaps, "names": names})
    with pytest.raises(UserError, match="no phantoms"):
        pictures.heat_map(findings)
    with pytest.raises(UserError, match="run `gxdistill evaluate` first"):
        pictures.heat_map(dataclasses.replace(findings, heatmaps=None))
