"""What is refused before any work is done: settings by their table, and beside the cohort."""

import difflib
import math

import ml_collections

from gxdistill.errors import UserError
from gxdistill.jobs.settings import Table, flatten, table_of
from gxdistill.jobs.shared import SHARED

_BALANCED = (
    "distill.batch",
    "distill.evaluate_patches",
    "evaluate.ceiling.batch",
    "compress.patches",
)
_MAX_BYTES = 1 << 30  # Of distilled images: what a receiver loads at most.


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


def check_classes(config: ml_collections.ConfigDict, classes: int) -> None:
    """Refuses class-balanced batches that have no room for each class.

    Raises:
      UserError: naming the setting.
    """
    given = dict(flatten(config, SHARED))
    for name in _BALANCED:
        size = given.get(name)
        if isinstance(size, int) and size < classes:
            raise UserError(
                f"{name} is {size}; a balanced draw of {classes} classes needs at least as many "
                f"patches. Raise it."
            )


def check_size(config: ml_collections.ConfigDict, shape: tuple[int, ...]) -> None:
    """Refuses distilled data that no receiver would load.

    Args:
      config: of the job.
      shape: of one patch, `[H, W, C]`.

    Raises:
      UserError: with the size.
    """
    loop = config.distill
    images = loop.steps * loop.images_per_step * math.prod(shape)
    size = 4 * (images + loop.steps * (loop.replay_epochs or loop.epochs))
    if size > _MAX_BYTES:
        raise UserError(
            f"The distilled data would take {size / 2**30:.3g} GiB, a package holds 1 GiB at most. "
            f"Lower distill.steps, distill.images_per_step, the epochs or patch.size."
        )
