import json
import subprocess
import sys

import ml_collections
import pytest

from gxdistill.errors import UserError
from gxdistill.jobs import checks, settings

TABLE = settings.Table(
    {
        "name": settings.text("unnamed", "text", "Name of the run."),
        "loop.steps": settings.integer(3, 1, 9, "Number of steps."),
        "loop.limit": settings.integer(None, 1, 9, "Most of them.", optional=True),
        "loop.outer.rate": settings.number(0.5, 0.0, 1.0, "Learning rate."),
        "loop.rule": settings.choice("a", ("a", "b"), "Either a | b."),
        "loop.changes": settings.items((), "names", "What is changed.", choices=("x", "y")),
        "loop.size": settings.items(
            None, "two sides", "Size.", fits=lambda value: len(value) == 2, optional=True
        ),
        "loop.ends": settings.switch(True, "Whether it ends."),
        "loop.options": settings.mapping("a name with its value", "What else there is."),
    },
    {"loop": "How it goes."},
)


def _config(**changes):
    config = settings.to_config(TABLE)
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return config


def test_a_config_has_the_defaults_and_is_locked():
    config = settings.to_config(TABLE)
    assert config.to_dict() == {
        "name": "unnamed",
        "loop": {
            "steps": 3,
            "limit": None,
            "outer": {"rate": 0.5},
            "rule": "a",
            "changes": (),
            "size": None,
            "ends": True,
            "options": {},
        },
    }
    with pytest.raises(AttributeError):
        config.loop.stepz = 1
    with pytest.raises(TypeError):
        config.loop.steps = "many"
    with pytest.raises(TypeError):
        config.loop.limit = "many"  # Its type is known, though it is None.
    config.loop.limit = 7
    config.loop.options = {"width": 3}
    checks.check(config, TABLE)


def test_two_configs_share_nothing():
    one, other = settings.to_config(TABLE), settings.to_config(TABLE)
    one.loop.options = {"width": 3}
    with one.loop.options.unlocked():
        one.loop.options.depth = 1
    assert other == settings.to_config(TABLE)


@pytest.mark.parametrize(
    ("name", "fit", "unfit", "must_be"),
    [
        ("name", ("", "x"), (None, 3), "a str"),
        ("loop.steps", (1, 9), (0, 10, 1.0, True, None, "3"), "a whole number from 1 to 9"),
        ("loop.limit", (None, 1, 9), (0, False), "a whole number from 1 to 9, or None"),
        ("loop.outer.rate", (0, 1, 0.5), (-0.1, True, float("nan")), "a number from 0.0 to 1.0"),
        ("loop.rule", ("a", "b"), ("c", None, ["a"]), "'a' or 'b'"),
        ("loop.changes", ((), ("x", "y")), (("x", "z"), (["x"],)), "names among 'x', 'y'"),
        ("loop.changes", ((),), ("x", ["x"], None), "a tuple"),
        ("loop.size", (None, (1, 2)), ((1,), 3, "ab"), "two sides, or None"),
        ("loop.ends", (True, False), (1, None), "a bool"),
        ("loop.options", (ml_collections.ConfigDict(),), ({}, None), "a ConfigDict"),
    ],
)
def test_a_setting_says_what_it_must_be(name, fit, unfit, must_be):
    setting = TABLE.settings[name]
    assert [setting.refusal(value) for value in fit] == [None] * len(fit)
    assert [setting.refusal(value) for value in unfit] == [must_be] * len(unfit)


def test_tables_join_settings_sections_and_rules():
    def refuse_three(config):
        if config.extra.count == 3:
            raise UserError("three")

    extra = settings.Table(
        {"extra.count": settings.integer(2, 1, 9, "Count.")}, {"extra": "More."}, (refuse_three,)
    )
    joined = TABLE | extra
    assert [*joined.settings] == [*TABLE.settings, "extra.count"]
    assert joined.sections == {"loop": "How it goes.", "extra": "More."}
    config = settings.to_config(joined)
    checks.check(config, joined)
    config.extra.count = 3
    with pytest.raises(UserError, match=r"^three$"):
        checks.check(config, joined)
    config.extra.count = 10  # Rules may count on what each setting may be.
    with pytest.raises(UserError, match=r"^extra\.count is 10; it must be a whole number"):
        checks.check(config, joined)


def test_a_config_is_held_against_each_task_of_which_it_has_a_section(monkeypatch):
    monkeypatch.setattr(settings, "_TASKS", [])
    tasks = [
        settings.add_task(
            settings.Table({f"{name}.count": settings.integer(2, 1, 9, "Count.")}, {name: "More."})
        )
        for name in ("first", "second")
    ]
    assert settings.table_of(settings.to_config(TABLE), TABLE) == TABLE
    for task in tasks:
        config = settings.to_config(TABLE | task)
        assert settings.table_of(config, TABLE) == TABLE | task


def test_names_of_costly_modules_are_looked_up_when_they_are_asked():
    code = (
        "import sys\n"
        "from gxdistill.jobs import settings\n"
        "names = settings.names_in('gxdistill.distill.inner', 'OPTIMIZERS')\n"
        "setting = settings.choice('sgd', names, 'Optimiser.')\n"
        "assert 'jax' not in sys.modules\n"
        "assert setting.may_be == \"'sgd' or 'momentum' or 'adam'\", setting.may_be\n"
        "assert 'jax' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_people_read_each_setting_with_value_help_and_range():
    text = settings.as_text(TABLE, _config(name="x", loop__steps=4, loop__options={"width": 1}))
    assert text.startswith("* name = 'x' (default 'unnamed')\n      Name of the run.\n      text\n")
    assert "\n\nloop: How it goes.\n\n* loop.steps = 4 (default 3)\n" in text
    assert "\n  loop.limit = None\n      Most of them.\n      a whole number from" in text
    assert "\n* loop.options = {'width': 1} (default {})\n" in text
    assert text.count("\n* ") == 2
    assert [line for line in settings.as_text(TABLE).splitlines() if line.startswith("*")] == []


def test_programs_read_the_same():
    told = json.loads(settings.as_json(TABLE, _config(loop__size=(2, 3), loop__changes=("x",))))
    assert [*told] == [*TABLE.settings]
    assert told["loop.steps"] == {
        "value": 3,
        "default": 3,
        "type": "int",
        "optional": False,
        "may_be": "a whole number from 1 to 9",
        "help": "Number of steps.",
        "low": 1,
        "high": 9,
    }
    assert told["loop.size"]["value"] == [2, 3]
    assert told["loop.size"]["optional"]
    assert told["loop.changes"]["choices"] == ["x", "y"]
    assert told["loop.options"]["type"] == "dict"


def test_a_page_has_a_table_of_each_section():
    page = settings.as_page(TABLE, "Title", "Words.")
    head = "| setting | default | may be | what it is |\n| --- | --- | --- | --- |\n"
    assert page.startswith(
        f"# Title\n\nWords.\n\n{head}| `name` | `'unnamed'` | text | Name of the run. |\n\n"
        f"## `loop`\n\nHow it goes.\n\n{head}| `loop.steps` | `3` | a whole number from 1 to 9 |"
    )
    assert "| `loop.rule` | `'a'` | 'a' or 'b' | Either a \\| b. |\n" in page
    assert page.count("\n| `") == len(TABLE.settings)
