import functools
import math

import ml_collections
import pytest

from gxdistill.errors import UserError
from gxdistill.jobs import checks
from gxdistill.jobs.settings import default_config

OPTIONAL = ("data.limit", "data.spacing")  # None reads all, and as it is.


def _numbers(tree, at=""):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{at}{key}.")
        elif type(value) in (int, float):
            yield f"{at}{key}"


def _changed(name, value):
    """A config in which one setting has a value that no check of ml_collections has seen."""
    *parents, last = name.split(".")
    settings = default_config().to_dict()
    functools.reduce(dict.__getitem__, parents, settings)[last] = value
    return ml_collections.ConfigDict(settings)


def test_every_number_has_a_range():
    numbers = set(_numbers(default_config().to_dict()))
    assert numbers | set(OPTIONAL) == set(checks.RANGES)


@pytest.mark.parametrize("name", checks.RANGES)
def test_a_number_out_of_range_is_refused_by_name(name):
    low, high = checks.RANGES[name]
    checks.check(_changed(name, low))
    checks.check(_changed(name, high))
    wrong = [-1, low - 1, high + 1, 10**30, math.nan, math.inf, -math.inf, "3", True, (3,)]
    for value in [*wrong, *([1.5] if isinstance(low, int) else [])]:
        with pytest.raises(UserError, match=f"^{name} is "):
            checks.check(_changed(name, value))
    if name not in OPTIONAL:
        with pytest.raises(UserError, match=f"^{name} is None; it must be a "):
            checks.check(_changed(name, None))


@pytest.mark.parametrize(
    ("name", "value", "may_be"),
    [
        ("data.kind", "films", "'manifest' or 'prepared' or 'phantom' or 'mnist'"),
        ("data.burned_in", "erase", "'mask' or 'refuse' or 'keep'"),
        ("data.fit", "stretch", "'same' or 'pad'"),
        ("data.window", 5, "'file' or 'percentiles'"),
        ("data.organ", 1, "a tuple"),
        ("distill.init", None, "'known' or 'random'"),
        ("distill.label_rule", "hard", "'raw' or 'softmax' or 'clipped'"),
        ("distill.started_from", "dreams", "'noise' or 'mixture' or 'real'"),
        ("distill.augmentations", ("turn", "blur"), "names among 'flip', 'turn'"),
        ("distill.augmentations", (["turn"],), "names among 'flip', 'turn'"),
        ("distill.augmentations", "turn", "a tuple"),
        ("distill.window", "first", "'all' or 'last' or 'random' or 'adaptive'"),
        ("distill.rates", "frozen", "'per_step' or 'shared' or 'order_free'"),
        ("distill.synthesis", "paint", "'pixels' or 'tiles' or 'bases'"),
        ("decision.rule", ["soft"], "'counts' or 'soft'"),
        ("data.image_size", (2048,), "height and width in pixels, or None"),
        ("data.image_size", (2048, 0), "height and width in pixels, or None"),
        ("data.image_size", (2048, 8.5), "height and width in pixels, or None"),
        ("data.label_names", ("a", "a"), "names that differ from each other and from 'irrelevant'"),
        ("data.label_names", ("irrelevant", "a"), "names that differ"),
        ("data.label_names", (), "names that differ"),
        ("data.label_names", "ab", "a tuple"),
        ("data.path", 3, "a str"),
        ("data.columns", 3, "a ConfigDict"),
        ("network.options", "wide", "a ConfigDict"),
        ("distill.memory", "all", "'auto' or 'store' or 'recompute' or 'nested'"),
        ("patch.border", None, "a bool"),
    ],
)
def test_another_kind_of_value_is_refused_with_what_it_may_be(name, value, may_be):
    with pytest.raises(UserError) as refusal:
        checks.check(_changed(name, value))
    assert str(refusal.value).startswith(f"{name} is {value!r}; it must be {may_be}")


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


def test_tables_of_the_users_own_are_open():
    config = default_config()
    config.data.columns = {"image": "images/{id}.jpg"}
    config.network.options = {"width": 3, "stages": (1, 2)}
    checks.check(config)


@pytest.mark.parametrize(
    "name", ["distill.batch", "distill.evaluate_patches", "evaluate.ceiling.batch"]
)
def test_a_balanced_batch_has_room_for_each_class(name):
    checks.check_classes(_changed(name, 3), 3)
    with pytest.raises(UserError, match=f"^{name} is 2; a balanced draw of 3 classes"):
        checks.check_classes(_changed(name, 2), 3)


def test_distilled_data_that_no_receiver_would_load_is_refused():
    config = default_config()
    config.distill.update(steps=1, epochs=1, images_per_step=2**10)
    checks.check_size(config, (2**9, 2**9 - 1, 1))  # 1 GiB all but 2 MiB
    with pytest.raises(UserError, match="would take 1 GiB"):
        checks.check_size(config, (2**9, 2**9, 1))  # the one learning rate is too much
    config.distill.update(steps=10**6, epochs=10**6)
    with pytest.raises(UserError, match=r"would take 3\.\d+e\+03 GiB"):
        checks.check_size(config, (1, 1, 1))
