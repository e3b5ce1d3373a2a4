import functools
import json
import math
import re
import subprocess
import sys

import ml_collections
import pytest

from configs import demo
from gxdistill.errors import UserError
from gxdistill.jobs.settings import as_json, as_text
from gxdistill.tasks.distillation import method, settings
from tests import small_jobs

NUMBERS = {name: of for name, of in settings.TABLE.settings.items() if of.limits}
PAGE = small_jobs.ROOT / "docs" / "settings.md"


def _changed(name, value):
    """A config in which one setting has a value that no check of ml_collections has seen."""
    *parents, last = name.split(".")
    values = settings.default_config().to_dict()
    functools.reduce(dict.__getitem__, parents, values)[last] = value
    return ml_collections.ConfigDict(values)


def test_the_defaults_are_what_they_may_be():
    config = settings.default_config()
    settings.check(config)
    assert config.is_locked
    assert (config.data.image_size, config.data.limit, config.data.spacing) == (None, None, None)


@pytest.mark.parametrize("name", settings.TABLE.settings)
def test_each_setting_says_in_one_plain_line_what_it_is_and_what_it_may_be(name):
    setting = settings.TABLE.settings[name]
    assert re.fullmatch(r"[A-Z`][^\n]{8,86}\.", setting.help)
    assert setting.may_be.strip()
    assert bool(setting.limits) == (setting.kind in (int, float))
    if setting.limits:
        assert {type(limit) for limit in setting.limits} == {setting.kind}
    assert setting.optional == (setting.default is None)


def test_each_section_is_told_of():
    sections = {name.partition(".")[0] for name in settings.TABLE.settings if "." in name}
    assert sections == set(settings.TABLE.sections)


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_out_of_range_is_refused_by_name(name):
    low, high = NUMBERS[name].limits
    for value in (low, high):
        config = _changed(name, value)
        config.distill.rates = "shared"  # So that distill.replay_epochs may be any.
        settings.check(config)
    wrong = [-1, low - 1, high + 1, 10**30, math.nan, math.inf, -math.inf, "3", True, (3,)]
    for value in [*wrong, *([1.5] if isinstance(low, int) else [])]:
        with pytest.raises(UserError, match=f"^{name} is "):
            settings.check(_changed(name, value))
    if not NUMBERS[name].optional:
        with pytest.raises(UserError, match=f"^{name} is None; it must be a "):
            settings.check(_changed(name, None))


@pytest.mark.parametrize(
    ("name", "value", "may_be"),
    [
        ("data.kind", "films", "'manifest' or 'prepared' or 'phantom' or 'mnist'"),
        ("data.burned_in", "erase", "'mask' or 'refuse' or 'keep'"),
        ("data.fit", "stretch", "'same' or 'pad'"),
        ("data.window", 5, "'file' or 'percentiles'"),
        ("data.leaks.site", "perhaps", "'refuse' or 'warn' or 'allow'"),
        ("data.organ", 1, "a tuple"),
        ("network.name", "lenett", "'lenet' or 'convnet' or 'resnet18'"),
        ("sampling.patients", "all", "'equal' or 'patches'"),
        ("distill.init", None, "'known' or 'random'"),
        ("distill.inner", "lion", "'sgd' or 'momentum' or 'adam'"),
        ("distill.label_rule", "hard", "'raw' or 'softmax' or 'clipped'"),
        ("distill.started_from", "dreams", "'noise' or 'mixture' or 'real'"),
        ("distill.start_schedule", "linear", "'constant' or 'cosine'"),
        ("distill.augmentations", ("turn", "melt"), "names among 'flip', 'turn'"),
        ("distill.augmentations", (["turn"],), "names among 'flip', 'turn'"),
        ("distill.augmentations", "turn", "a tuple"),
        ("distill.window", "first", "'all' or 'last' or 'random' or 'adaptive'"),
        ("distill.rates", "frozen", "'per_step' or 'shared' or 'order_free'"),
        ("distill.synthesis", "paint", "'pixels' or 'tiles' or 'bases'"),
        ("decision.rule", ["soft"], "'counts' or 'soft' or 'zones'"),
        ("data.image_size", (2048,), "height and width in pixels, or None"),
        ("data.image_size", (2048, 0), "height and width in pixels, or None"),
        ("data.image_size", (2048, 8.5), "height and width in pixels, or None"),
        ("data.image_size", 2048, "height and width in pixels, or None"),
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
        settings.check(_changed(name, value))
    assert str(refusal.value).startswith(f"{name} is {value!r}; it must be {may_be}")


def test_a_config_without_the_task_is_refused():
    config = _changed("seed", 0)
    del config.distill, config.compress
    with pytest.raises(UserError, match=r"has no setting distill\.\w"):
        settings.check(config)


@pytest.mark.parametrize("name", settings.TABLE.settings["distill.synthesis"].names)
def test_every_synthesis_that_may_be_chosen_can_be_made(name, tmp_path):
    job = small_jobs.make(tmp_path, distill__synthesis=name, distill__bases=2)
    problem, section = job.problem, job.config.distill
    learned = method.build(problem, section, job.log)[1].learned
    images = method.to_distilled(problem, section, learned).images
    assert images.shape[2:] == problem.shape


def test_a_smoke_config_loops_a_handful_of_times():
    config = settings.default_config()
    settings.shrink_to_smoke(config, batch=20, outer_steps=8)
    settings.check(config)
    assert (config.distill.outer_steps, config.distill.batch) == (8, 20)
    assert (config.evaluate.ceiling.steps, config.evaluate.ceiling.batch) == (4, 20)
    for name in ("outer_steps", "checkpoint_every", "evaluate_every"):
        assert config.distill[name] % config.distill.steps_per_call == 0
    for name in ("data", "patch", "network", "sampling", "compress"):
        assert config[name] == settings.default_config()[name]


def test_the_settings_of_a_config_are_told_to_people_and_to_programs():
    config = demo.get_config("smoke")
    table = settings.TABLE
    text, told = as_text(table, config), json.loads(as_json(table, config))
    assert "\n* distill.batch = 16 (default 256)\n      Real patches of one outer step.\n" in text
    assert "\n* network.options = {'depth': 1, 'width': 4} (default {})\n" in text
    assert [*told] == [*table.settings]
    assert told["distill.inner"]["choices"] == ["sgd", "momentum", "adam"]
    assert told["distill.batch"]["value"] == 16
    assert json.loads(as_json(table))["distill.batch"]["value"] == 256


def test_the_page_of_the_docs_is_fresh():
    command = "python -m gxdistill.tasks.distillation.settings > docs/settings.md"
    assert PAGE.read_text("utf-8") == settings.as_page(), (
        f"docs/settings.md is stale; run: {command}"
    )
    assert command in settings.as_page()


def test_the_command_prints_the_page():
    run = subprocess.run(
        [sys.executable, "-W", "error", "-m", settings.__name__],
        check=True,
        capture_output=True,
        text=True,
        cwd=small_jobs.ROOT,
    )
    assert run.stdout == settings.as_page()


def test_a_config_is_made_without_jax():
    # A plan names JAX its platform when the config has been read, and JAX looks but once.
    code = (
        "import sys\n"
        "from configs import demo\n"
        "demo.get_config('smoke')\n"
        "assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=small_jobs.ROOT)
