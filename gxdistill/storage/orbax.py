"""How Orbax is to behave while `arrays` calls it."""

import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

import jax

if TYPE_CHECKING:
    from orbax.checkpoint import v1 as ocp


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drops what Orbax logs: warnings about its other formats, and every error it raises anyway."""

    def ours(record: logging.LogRecord) -> bool:
        return "orbax" not in record.pathname

    logger = logging.getLogger("absl")
    logger.addFilter(ours)
    try:
        yield
    finally:
        logger.removeFilter(ours)


def context() -> "ocp.Context":
    """Makes settings by which each of several processes saves and loads without the others."""
    from orbax.checkpoint import v1 as ocp

    process = jax.process_index()
    settings = ocp.Context()
    settings.multiprocessing.primary_host = process
    settings.multiprocessing.active_processes = {process}
    return settings


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Has Orbax, in one of several processes, save without asking the others for the same path.

    It asks them even where its `active_processes` names but one.
    """
    if jax.process_count() == 1:
        yield
        return
    from orbax.checkpoint.experimental.v1._src.saving import execution

    asking = execution._check_directory_consistency
    execution._check_directory_consistency = lambda _: None
    try:
        yield
    finally:
        execution._check_directory_consistency = asking
