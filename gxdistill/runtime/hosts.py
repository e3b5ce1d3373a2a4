"""Several processes that run one job together: the hosts of a pod, the tasks of a cluster.

All do the same, on the devices of all. The first one speaks and keeps what the job makes; the
others work in folders of their own, which are dropped.
"""

import contextlib
import os
import re
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from gxdistill.errors import UserError
from gxdistill.runtime import interrupts
from gxdistill.runtime.console import log

_PATIENCE = 24 * 3600  # Seconds that the slowest process may be behind.
_SILENCE = 30  # Seconds after which a process that says nothing is given up.

# What the collectives and the coordinator say where a process does not answer.
_LOST = re.compile(
    "gloo|barrier|heartbeat|connection|coordination|unavailable|deadline", re.IGNORECASE
)

Tree = TypeVar("Tree")
_meetings: Counter[str] = Counter()


class ProcessSpec(NamedTuple):
    """Which of the processes this one is.

    Attributes:
      coordinator: address of the first one, `HOST:PORT`; "auto" asks the cluster (a TPU pod,
        Slurm, Kubernetes, Open MPI); None is a job of one process.
      processes: their number; None with "auto".
      process: this one's number, from 0; None with "auto".
    """

    coordinator: str | None = None
    processes: int | None = None
    process: int | None = None


@contextlib.contextmanager
def process_group(spec: ProcessSpec, workdir: Path) -> Iterator[Path]:
    """Makes this process one of several, and leaves all at once where one of them fails.

    Args:
      spec: of this process.
      workdir: where the first process works.

    Yields:
      Where this process works.

    Raises:
      UserError: the others cannot be met.
    """
    if spec.coordinator is None:
        yield workdir
        return
    _meet(spec)
    folder = tempfile.TemporaryDirectory() if jax.process_index() else None
    try:
        yield Path(folder.name) if folder else workdir
    except BaseException as error:
        if folder:
            folder.cleanup()
        _leave(error)
    if folder:
        folder.cleanup()
    wait("end")
    jax.distributed.shutdown()


def leads() -> bool:
    """Whether this is the first process, or the only one."""
    return jax.process_index() == 0


def wait(name: str) -> None:
    """Waits for all processes, however long they take; `name` says for what.

    A collective gives up on those who are half a minute behind, as one that compiles may be.
    """
    if jax.process_count() == 1:
        return
    from orbax.checkpoint import multihost

    everyone = set(range(jax.process_count()))
    _meetings[name] += 1  # Each has a name of its own; all processes come to them in one order.
    name = f"gxdistill {name} {_meetings[name]}"
    multihost.sync_global_processes(name, processes=everyone, timeout=_PATIENCE)


def from_first(tree: Tree) -> Tree:
    """Gives every process the arrays of the first; of the same shapes everywhere, and no keys."""
    if jax.process_count() == 1:
        return tree
    wait("first state")
    # Leaf after leaf: several at a time may overtake each other.
    return jax.tree.map(lambda leaf: np.asarray(multihost_utils.broadcast_one_to_all(leaf)), tree)


def check_same(digest: bytes, what: str) -> None:
    """Refuses processes that would not do the same.

    Raises:
      UserError: `digest` differs from the first process's; `what` it is of.
    """
    if jax.process_count() == 1:
        return
    wait(what)
    here = np.frombuffer(digest, np.uint8)
    for number, other in enumerate(multihost_utils.process_allgather(here)):
        if not np.array_equal(other, here):
            raise UserError(
                f"process {jax.process_index()} has another {what} than process {number}. Give all "
                f"processes the same."
            )


def _meet(spec: ProcessSpec) -> None:
    automatic = spec.coordinator == "auto"
    if not automatic and None in (spec.processes, spec.process):
        raise UserError(
            f"--coordinator={spec.coordinator} needs --processes=N, their number, and "
            f"--process=I, this one's, from 0. Or ask the cluster, with --coordinator=auto."
        )
    known = (
        {}
        if automatic
        else {
            "coordinator_address": spec.coordinator,
            "num_processes": spec.processes,
            "process_id": spec.process,
        }
    )
    try:
        jax.distributed.initialize(**known, heartbeat_timeout_seconds=_SILENCE)  # type: ignore[arg-type]
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"the processes of this job did not meet at {spec.coordinator}: "
            f"{str(error).splitlines()[0]} Start all {spec.processes or ''} of them within five "
            f"minutes, with the address of the first."
        ) from error


def _leave(error: BaseException) -> NoReturn:
    """Says why, and ends the process without waiting for the others, so that they notice."""
    who = f"gxdistill: process {jax.process_index()} of {jax.process_count()}"
    status = 1
    if isinstance(error, KeyboardInterrupt):
        number = interrupts.number_of(error)
        text = (
            f"{who} stops: it was {interrupts.WORDS[number]}. Start all of them again: the run "
            f"resumes at the last checkpoint."
        )
        status = 128 + number
    elif isinstance(error, jax.errors.JaxRuntimeError) and _LOST.search(str(error)):
        text = (
            f"{who} stops: another one was lost ({str(error).splitlines()[0][:200]}). Start all of "
            f"them again: the run resumes at the last checkpoint."
        )
    elif isinstance(error, UserError):
        text = f"{who} stops: {' '.join(str(error).split())}"
    else:
        text = f"{who} stops.\n{''.join(traceback.format_exception(error))}"
    log(text)
    os._exit(status)
