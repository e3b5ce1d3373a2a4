import os

import numpy as np
import pytest

from benchmarks import data_scale
from gxdistill.data.prepared import reader
from gxdistill.tasks.cohort import preparing
from tests import small_jobs


def test_a_set_is_repeated(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    small_jobs.write_cohort(tmp_path / "files")
    given = {"data__kind": "manifest", "data__path": str(tmp_path / "files")}
    once = preparing.prepare(small_jobs.make(tmp_path / "work", **given))
    data_scale.repeat_set(once, tmp_path / "many", 3)
    one, many = (reader.read_prepared(path).cohort for path in (once, tmp_path / "many"))
    assert len(many.images) == 3 * len(one.images)
    for split in ("train", "test"):
        own, repeated = (of.select(of.splits == split) for of in (one, many))
        np.testing.assert_array_equal(repeated.images, np.tile(own.images, (3, 1, 1, 1)))
        np.testing.assert_array_equal(repeated.patients, np.tile(own.patients, 3))


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
