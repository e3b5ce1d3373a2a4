import json
from functools import partial

import jax
import numpy as np
import pytest
from PIL import Image

from gxdistill.errors import UserError
from gxdistill.package.seeds import Use
from tests import small_jobs


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return small_jobs.make(tmp_path_factory.mktemp("job"))


def test_settings_are_checked_before_any_work(tmp_path):
    with pytest.raises(UserError, match=r"patch\.stride is 0"):
        small_jobs.make(tmp_path, patch__stride=0)


def test_each_use_of_randomness_and_each_seed_has_its_key(job, tmp_path):
    other = small_jobs.make(tmp_path, seed=1)
    keys = {jax.random.key_data(j.key(use)).tobytes() for j in (job, other) for use in Use}
    assert len(keys) == 2 * len(Use)
    again = small_jobs.make(tmp_path)
    for use in Use:
        assert job.key(use) == again.key(use)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"seed": 1}, False),
        ({"data__size": 64}, False),
        ({"patch__border": True}, False),
        ({"network__options.width": 8}, False),
        ({"distill__optimizer.clip": 2.0}, False),
        ({"name": "another"}, True),
        ({"evaluate__networks": 9}, True),
        ({"decision__rule": "soft"}, True),
    ],
)
def test_the_identity_is_what_the_distilled_data_depends_on(change, same, job, tmp_path):
    identity = job.identity("distill")
    assert json.loads(json.dumps(identity)) == identity
    assert (small_jobs.make(tmp_path, **change).identity("distill") == identity) == same


def test_a_changed_image_is_another_identity_under_the_same_settings(tmp_path):
    small_jobs.write_cohort(tmp_path)
    make = partial(small_jobs.make, tmp_path, data__kind="manifest", data__path=str(tmp_path))
    before = make().identity()
    assert make().identity() == before
    pixels = np.array(Image.open(tmp_path / "0.png"))
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(tmp_path / "0.png")
    after = make().identity()
    assert {name for name in before if before[name] != after[name]} == {"cohort"}
