"""What a setting is, and tables of settings: their config, their checks' words, their pages.

The settings of a config are those that every task shares (`gxdistill.jobs.shared`) and those of one
task, of which the task's `settings` holds the table. Nothing here imports JAX: a config is read
before JAX is told its platform.
"""

import dataclasses
import importlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import ml_collections

Shape = tuple[int, int, int]
Choices = tuple[str, ...] | Callable[[], tuple[str, ...]]


@dataclasses.dataclass(frozen=True)
class Setting:
    """One setting; made by `text`, `switch`, `integer`, `number`, `choice`, `items` or `mapping`.

    Attributes:
      default: its value where a config says nothing.
      help: one line for people.
      kind: type of its value.
      limits: lowest and highest number.
      choices: the names that it may be, or that a tuple or the values of a mapping may be; a
        function of code that is costly to import.
      form: what a text, a tuple or a mapping holds, in words.
      fits: whether a value of the kind may be it, beyond the above.
      optional: whether it may be None, too.
    """

    default: object
    help: str
    kind: type
    _: dataclasses.KW_ONLY
    limits: tuple[float, float] | None = None
    choices: Choices = ()
    form: str = ""
    fits: Callable[[object], bool] | None = None
    optional: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """What `choices` are now."""
        return self.choices() if callable(self.choices) else self.choices

    @property
    def may_be(self) -> str:
        """Says what the setting may be, to stand behind "must be"."""
        if self.limits:
            what = "a whole number" if self.kind is int else "a number"
            form = f"{what} from {self.limits[0]} to {self.limits[1]}"
        elif self.kind is bool:
            form = "True or False"
        elif self.choices and self.kind is tuple:
            form = f"names among {', '.join(map(repr, self.names))}"
        else:
            form = self.form or " or ".join(map(repr, self.names))
        return form + (", or None" if self.optional else "")

    def refusal(self, value: object) -> str | None:
        """Says what the setting must be in place of `value`; None where that will do."""
        if value is None and self.optional:
            return None
        if self.limits:
            return None if self._is_number(value, *self.limits) else self.may_be
        if self.choices and self.kind is str:
            return None if value in self.names else self.may_be
        if not isinstance(value, self.kind):
            return self.may_be if self.optional else f"a {self.kind.__name__}"
        if self.choices and isinstance(value, tuple | ml_collections.ConfigDict):
            parts = value if isinstance(value, tuple) else value.values()
            return None if all(part in self.names for part in parts) else self.may_be
        return None if self.fits is None or self.fits(value) else self.may_be

    def _is_number(self, value: object, low: float, high: float) -> bool:
        # Not isinstance: True is no number here.
        if type(value) is int or (type(value) is float and self.kind is float):
            return low <= value <= high  # False of NaN
        return False


@dataclasses.dataclass(frozen=True)
class Table:
    """Settings that belong together; `shared | of_a_task` is what a config of the task has.

    Attributes:
      settings: by dotted name, as "distill.optimizer.clip".
      sections: what each first part of the names is about, one line each.
      rules: refuse, with `UserError`, settings that do not fit each other.
      problem_rules: `(config, shape, classes)`, refuse settings that do not fit the patches, of
        shape `[H, W, C]`, or their K classes.
    """

    settings: Mapping[str, Setting]
    sections: Mapping[str, str]
    rules: tuple[Callable[[ml_collections.ConfigDict], None], ...] = ()
    problem_rules: tuple[Callable[[ml_collections.ConfigDict, Shape, int], None], ...] = ()

    def __or__(self, other: "Table") -> "Table":
        """Joins two tables; of a setting that both have, the other's holds."""
        return Table(
            {**self.settings, **other.settings},
            {**self.sections, **other.sections},
            (*self.rules, *other.rules),
            (*self.problem_rules, *other.problem_rules),
        )


class Row(NamedTuple):
    """A setting as people and programs are told of it.

    Attributes:
      name: dotted.
      value: of a config.
      setting: what it may be.
    """

    name: str
    value: object
    setting: Setting

    @property
    def is_changed(self) -> bool:
        """Whether its value is not the default."""
        return self.value != self.setting.default


_TASKS: list[Table] = []


def add_task(table: Table) -> Table:
    """Makes the settings of a task known, so that any config with its sections can be checked.

    A task's `settings` calls this when it is imported: the layers below know no task.
    """
    _TASKS.append(table)
    return table


def table_of(config: ml_collections.ConfigDict, shared: Table) -> Table:
    """Joins to the shared settings those of each known task that a config has a section of."""
    table = shared
    for task in _TASKS:
        if any(section in config for section in task.sections):
            table |= task
    return table


def names_in(module: str, name: str) -> Callable[[], tuple[str, ...]]:
    """Gives a function that imports a module and lists the names in a tuple or mapping of its.

    Example:
      `names_in("gxdistill.distill.inner", "OPTIMIZERS")() == ("sgd", "momentum", "adam")`
    """
    return lambda: tuple(getattr(importlib.import_module(module), name))


def text(default: str, form: str, help: str) -> Setting:
    """Makes a setting that is a text of some form."""
    return Setting(default, help, str, form=form)


def switch(default: bool, help: str) -> Setting:
    """Makes a setting that is on or off."""
    return Setting(default, help, bool)


def integer(
    default: int | None, low: int, high: int, help: str, *, optional: bool = False
) -> Setting:
    """Makes a setting that is a whole number from `low` to `high`."""
    return Setting(default, help, int, limits=(low, high), optional=optional)


def number(
    default: float | None, low: float, high: float, help: str, *, optional: bool = False
) -> Setting:
    """Makes a setting that is a number from `low` to `high`."""
    return Setting(default, help, float, limits=(low, high), optional=optional)


def choice(default: str, choices: Choices, help: str) -> Setting:
    """Makes a setting that is one of some names."""
    return Setting(default, help, str, choices=choices)


def items(
    default: tuple | None,
    form: str,
    help: str,
    *,
    choices: Choices = (),
    fits: Callable[[object], bool] | None = None,
    optional: bool = False,
) -> Setting:
    """Makes a setting that is a tuple."""
    return Setting(default, help, tuple, choices=choices, form=form, fits=fits, optional=optional)


def mapping(form: str, help: str, *, choices: Choices = ()) -> Setting:
    """Makes a setting whose keys are the user's, at first none."""
    return Setting({}, help, ml_collections.ConfigDict, form=form, choices=choices)


def to_config(table: Table) -> ml_collections.ConfigDict:
    """Makes a config in which each setting has its default; fields are locked."""
    config = ml_collections.ConfigDict()
    for name, setting in table.settings.items():
        *parents, last = name.split(".")
        section = config
        for parent in parents:
            if parent not in section:
                section[parent] = ml_collections.ConfigDict()
            section = section[parent]
        if setting.default is None:
            section[last] = ml_collections.config_dict.placeholder(setting.kind)
        elif setting.kind is ml_collections.ConfigDict:
            section[last] = ml_collections.ConfigDict(setting.default)
        else:
            section[last] = setting.default
    return config.lock()


def flatten(
    config: ml_collections.ConfigDict, table: Table, at: str = ""
) -> Iterator[tuple[str, object]]:
    """Gives each setting of a config with its dotted name; a mapping of the user's is one."""
    for key in config:
        name, value = f"{at}{key}", config[key]
        setting = table.settings.get(name)
        is_mapping = setting is not None and setting.kind is ml_collections.ConfigDict
        if isinstance(value, ml_collections.ConfigDict) and not is_mapping:
            yield from flatten(value, table, f"{name}.")
        else:
            yield name, value


def describe(table: Table, config: ml_collections.ConfigDict | None = None) -> list[Row]:
    """Lists the settings of a table, with their values in a config; in none, their defaults."""
    values = {} if config is None else dict(flatten(config, table))
    return [
        Row(name, _plain(values.get(name, setting.default)), setting)
        for name, setting in table.settings.items()
    ]


def _plain(value: object) -> object:
    return value.to_dict() if isinstance(value, ml_collections.ConfigDict) else value


def _by_section(rows: list[Row]) -> Iterator[tuple[str, list[Row]]]:
    """Gives the rows of each section, by its name; "" is that of names without a dot."""
    sections: dict[str, list[Row]] = {}
    for row in rows:
        section = row.name.partition(".")[0] if "." in row.name else ""
        sections.setdefault(section, []).append(row)
    yield from sections.items()


def as_text(table: Table, config: ml_collections.ConfigDict | None = None) -> str:
    """Writes the settings of a table for people; a star marks what a config has changed."""
    lines = []
    for section, rows in _by_section(describe(table, config)):
        lines += ["", f"{section}: {table.sections[section]}", ""] if section else []
        for row in rows:
            was = f" (default {row.setting.default!r})" if row.is_changed else ""
            lines += [
                f"{'*' if row.is_changed else ' '} {row.name} = {row.value!r}{was}",
                f"      {row.setting.help}",
                f"      {row.setting.may_be}",
            ]
    return "\n".join(lines)


def as_json(table: Table, config: ml_collections.ConfigDict | None = None) -> str:
    """Writes the settings of a table for programs: an object by dotted name.

    Each has `value`, `default`, `type`, `may_be` and `help`; a number also `low` and `high`, a
    name, or a tuple of names, `choices`. Tuples are lists.
    """
    rows = {row.name: _as_object(row) for row in describe(table, config)}
    return json.dumps(rows, indent=2, default=str)  # A mapping of the user's may hold anything.


def _as_object(row: Row) -> dict[str, object]:
    setting = row.setting
    told = {
        "value": row.value,
        "default": setting.default,
        "type": "dict" if setting.kind is ml_collections.ConfigDict else setting.kind.__name__,
        "optional": setting.optional,
        "may_be": setting.may_be,
        "help": setting.help,
    }
    if setting.limits:
        told |= {"low": setting.limits[0], "high": setting.limits[1]}
    if setting.choices:
        told["choices"] = setting.names
    return told


def as_page(table: Table, title: str, introduction: str) -> str:
    """Writes the settings of a table as a page of Markdown."""
    lines = [f"# {title}", "", introduction]
    for section, rows in _by_section(describe(table)):
        lines += ["", f"## `{section}`", "", table.sections[section]] if section else []
        lines += ["", "| setting | default | may be | what it is |", "| --- | --- | --- | --- |"]
        for name, _, setting in rows:
            cells = (f"`{name}`", f"`{setting.default!r}`", setting.may_be, setting.help)
            escaped = [cell.replace("|", r"\|") for cell in cells]
            lines.append(f"| {' | '.join(escaped)} |")
    return "\n".join(lines) + "\n"
