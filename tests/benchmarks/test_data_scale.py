import csv

import numpy as np
import pytest
from PIL import Image

from benchmarks import data_scale
from tests import jobs


def test_flipped_copies_make_four_images_of_one(tmp_path):
    jobs.write_cohort(tmp_path / "once", side=16)
    data_scale.write_flips(tmp_path / "four", tmp_path / "once")
    with (tmp_path / "four/manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 8
    assert len({row["patient"] for row in rows}) == 8
    for field in ("image", "mask"):
        original = np.asarray(
            Image.open(tmp_path / "once" / ("0.png", "0_mask.png")[field == "mask"])
        )
        found = [np.asarray(Image.open(tmp_path / "four" / row[field])) for row in rows[:4]]
        for copy, turned in zip(found, (original, np.fliplr(original)), strict=False):
            np.testing.assert_array_equal(copy, turned)
        np.testing.assert_array_equal(found[3], np.rot90(original, 2))


@pytest.mark.parametrize(
    ("metric", "unit"),
    [
        ("streaming_held_mb", "MiB"),
        ("prepare_images_per_s_of_2_cores", "1/s"),
        ("prepare_gastritis_patches", "patches"),
        ("resident_step_ratio", "1"),
        ("resident_step_cpu_s", "s"),
    ],
)
def test_every_metric_has_its_unit(metric, unit):
    assert data_scale._unit(metric) == unit
