"""A federation that starts from a segmenter starts from its very weights."""

import jax
import numpy as np
import pytest

from configs import segmentation
from gxdistill.errors import UserError
from gxdistill.jobs.job import Job
from gxdistill.jobs.workdir import Workdir
from gxdistill.package.segmenter import load_segmenter
from gxdistill.tasks.federation import hospitals, simulating, starting
from gxdistill.tasks.segmentation.training import train
from tests.tasks.federation import small_federations


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    """Trained for two steps on drawn tissue."""
    folder = tmp_path_factory.mktemp("shapes")
    config = segmentation.get_config("shapes")
    config.data.update(patients=20, size=32, mask_classes=("background", "organ", "other"))
    config.patch.update(size=16, stride=8)
    config.network.options = {"width": 4, "depth": 1}
    config.segment.update(steps=2, batch=4, steps_per_call=1, checkpoint_every=1, overlap=8)
    return train(Job(config, Workdir(folder), print))


def _job(tmp_path, segmenter, **changes):
    classes = ("background", "organ", "other")
    return small_federations.make(
        tmp_path, federation__start=str(segmenter), data__mask_classes=classes, **changes
    )


def test_all_contenders_start_from_the_weights_of_the_package(tmp_path, segmenter):
    job = _job(tmp_path, segmenter)
    network = simulating.network_of(job, hospitals.of_job(job))
    start = starting.start_of(job.config, network)
    jax.tree.map(np.testing.assert_array_equal, start, load_segmenter(segmenter).params)
    with job.config.unlocked():
        job.config.federation.start = ""
    drawn = starting.start_of(job.config, network)
    assert any(
        (a != b).any() for a, b in zip(jax.tree.leaves(start), jax.tree.leaves(drawn), strict=True)
    )


def test_the_package_is_part_of_what_a_simulation_is(tmp_path, segmenter):
    with_start, without = (simulating.identity(_job(tmp_path, path)) for path in (segmenter, ""))
    assert with_start["start"] == load_segmenter(segmenter).sha256
    assert "start" not in without


def test_a_package_that_is_not_there_is_refused_with_what_makes_it(tmp_path):
    job = _job(tmp_path, tmp_path / "none.gxs")
    with pytest.raises(
        UserError, match=r"none\.gxs, which is not there\. Make it by `gxdistill seg"
    ):
        simulating.simulate(job)


def test_weights_of_another_network_are_refused(tmp_path, segmenter):
    options = {"width": 8, "depth": 1}
    job = _job(tmp_path, segmenter, network__options=options)
    with pytest.raises(UserError, match=r"federation\.start is .*, whose weights are not those of"):
        simulating.simulate(job)
    assert not (tmp_path / "trainings").exists()
