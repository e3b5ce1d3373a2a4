import functools

import ml_collections
import pytest

from gxdistill.errors import UserError
from gxdistill.jobs import checks
from gxdistill.jobs.settings import to_config
from gxdistill.jobs.shared import SHARED
from gxdistill.tasks.distillation.settings import default_config


def _changed(name, value):
    """A config in which one setting has a value that no check of ml_collections has seen."""
    *parents, last = name.split(".")
    settings = default_config().to_dict()
    functools.reduce(dict.__getitem__, parents, settings)[last] = value
    return ml_collections.ConfigDict(settings)


def test_a_config_without_a_task_has_the_shared_settings():
    config = to_config(SHARED)
    checks.check(config)
    config.unlock()
    config.patches = ml_collections.ConfigDict({"size": 3})
    with pytest.raises(
        UserError, match=r"unknown setting patches\.size\. Did you mean patch\.size"
    ):
        checks.check(config)


def test_a_setting_too_few_or_too_many_is_refused():
    config = ml_collections.ConfigDict(default_config().to_dict())
    config.distill.stepz = 3
    with pytest.raises(
        UserError, match=r"unknown setting distill\.stepz\. Did you mean distill\.steps"
    ):
        checks.check(config)
    del config.distill.stepz, config.evaluate.ceiling.lr
    with pytest.raises(UserError, match=r"has no setting evaluate\.ceiling\.lr"):
        checks.check(config)
    with pytest.raises(UserError, match=r"has no setting \w"):
        checks.check(ml_collections.ConfigDict())
    # A section that a config has in part is a whole task's.
    config = ml_collections.ConfigDict(default_config().to_dict())
    del config.compress
    with pytest.raises(UserError, match=r"has no setting compress\.\w"):
        checks.check(config)


def test_mappings_of_the_users_are_open():
    config = default_config()
    config.data.columns = {"image": "images/{id}.jpg"}
    config.network.options = {"width": 3, "stages": (1, 2)}
    checks.check(config)


@pytest.mark.parametrize(
    "name",
    ["distill.batch", "distill.evaluate_patches", "evaluate.ceiling.batch", "compress.patches"],
)
def test_a_balanced_batch_has_room_for_each_class(name):
    checks.check_problem(_changed(name, 3), (8, 8, 1), 3)
    with pytest.raises(UserError, match=f"^{name} is 2; a balanced draw of 3 classes"):
        checks.check_problem(_changed(name, 2), (8, 8, 1), 3)
    checks.check_problem(to_config(SHARED), (8, 8, 1), 10**6)  # Of no task: draws none.


def test_distilled_data_that_no_receiver_would_load_is_refused():
    config = default_config()
    config.distill.update(steps=1, epochs=1, images_per_step=2**10)
    checks.check_problem(config, (2**9, 2**9 - 1, 1), 3)  # 1 GiB all but 2 MiB
    with pytest.raises(UserError, match="would take 1 GiB"):
        checks.check_problem(config, (2**9, 2**9, 1), 3)  # the one learning rate is too much
    config.distill.update(steps=10**6, epochs=10**6)
    with pytest.raises(UserError, match=r"would take 3\.\d+e\+03 GiB"):
        checks.check_problem(config, (1, 1, 1), 3)
