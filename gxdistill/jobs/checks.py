"""What is refused before any work is done: settings by their table, and beside the cohort."""

import difflib

import ml_collections

from gxdistill.errors import UserError
from gxdistill.jobs.settings import Shape, Table, flatten, table_of
from gxdistill.jobs.shared import SHARED


def check(config: ml_collections.ConfigDict, table: Table | None = None) -> None:
    """Refuses a config that lacks a setting, or has one too many, of another type or out of range.

    Args:
      config: of a job.
      table: what it is to have; None for the shared settings, and those of each task of which it
        has a section.

    Raises:
      UserError: naming the setting, its value and what it may be.
    """
    table = table_of(config, SHARED) if table is None else table
    given = dict(flatten(config, table))
    for name in [name for name in table.settings if name not in given]:
        raise UserError(
            f"The config has no setting {name}. Start it from the default_config() of its task, "
            f"as the files in configs/ do."
        )
    for name in [name for name in given if name not in table.settings]:
        nearest = difflib.get_close_matches(name, table.settings, 1, 0)[0]
        raise UserError(f"The config has an unknown setting {name}. Did you mean {nearest}?")
    for name, value in given.items():
        must_be = table.settings[name].refusal(value)
        if must_be:
            raise UserError(f"{name} is {value!r}; it must be {must_be}.")
    for rule in table.rules:
        rule(config)


def check_problem(config: ml_collections.ConfigDict, shape: Shape, classes: int) -> None:
    """Refuses settings that do not fit what is to be learned.

    Args:
      config: of a job.
      shape: of a patch, `[H, W, C]`.
      classes: K.

    Raises:
      UserError: naming the setting.
    """
    for rule in table_of(config, SHARED).problem_rules:
        rule(config, shape, classes)


def check_balanced(name: str, size: int, classes: int) -> None:
    """Refuses a class-balanced draw that has no room for each class.

    Raises:
      UserError: naming the setting.
    """
    if size < classes:
        raise UserError(
            f"{name} is {size}; a balanced draw of {classes} classes needs at least as many "
            f"patches. Raise it."
        )
