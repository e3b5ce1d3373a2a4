"""A tiny segmenter that was trained and measured, for all that read what a job wrote."""

import pytest

from gxdistill.tasks.segmentation import evaluating, training
from tests import segmenters, toy


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    with toy.quick_compilation():
        yield


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("segmented")
    job = segmenters.make_job(folder, log=lambda _: None)
    with toy.quick_compilation():
        evaluating.evaluate(job, training.train(job))
    return folder
