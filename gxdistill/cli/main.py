"""The command line: which command is meant, and how its failures are told.

Nothing costly is imported for the help; each command imports what it needs when it runs.
"""

import contextlib
import difflib
import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import NoReturn

from gxdistill import __version__
from gxdistill.cli import (
    audit,
    cohort,
    config,
    distillation,
    federation,
    flags,
    mixup,
    packages,
    segmentation,
)
from gxdistill.errors import UserError
from gxdistill.runtime import console, environment, interrupts
from gxdistill.runtime.console import log

# A task's file of commands is named here, and nowhere else.
_TASKS = (cohort, distillation, federation, audit, packages, mixup, segmentation)
COMMANDS = {command.name: command for task in _TASKS for command in task.COMMANDS}

_USAGE = """gxdistill: distils private radiographs into a handful of synthetic soft-label images.

usage: gxdistill COMMAND [ARGUMENTS] [FLAGS]

Commands:
{commands}

`gxdistill COMMAND --help` lists the flags of a command, `gxdistill --version` says the version.
Values are written --flag=value or --flag value.
Configs, --config=NAME: {configs}.
"""
_HELP = {"-h", "--help"}
_READER_GONE = 128 + 13  # The status of a program that SIGPIPE ends, as the shell gives it.


def _usage() -> str:
    lines = (
        f"  {command.name:<9} {': '.join(filter(None, (command.arguments, command.summary)))}"
        for command in COMMANDS.values()
    )
    return _USAGE.format(commands="\n".join(lines), configs=", ".join(config.shipped()))


def _answer(words: list[str]) -> str | None:
    """What is asked for by the words of a command line, if it is help or the version."""
    if words[:1] == ["--version"]:
        return f"gxdistill {__version__}\n"
    rest = [word for word in words if word not in _HELP]
    if rest[:1] == ["help"]:
        rest = rest[1:]
    if not rest:
        return _usage()
    if rest == words:
        return None
    name, _ = _split(rest)
    family = [command for command in COMMANDS.values() if command.name.split()[0] == name]
    return "\n".join(map(flags.page, family)) or flags.page(_command(name))


def _split(words: Sequence[str]) -> tuple[str, list[str]]:
    """Parts the name of a command, of one word or two, from what stands behind it."""
    pair = " ".join(words[:2])
    return (pair, [*words[2:]]) if pair in COMMANDS else (words[0], [*words[1:]])


def _command(name: str) -> flags.Command:
    if name in COMMANDS:
        return COMMANDS[name]
    family = [command for command in COMMANDS if command.split()[0] == name]
    if family:
        sys.exit(f"gxdistill {name}: say which, as: gxdistill {', gxdistill '.join(family)}")
    if name.startswith("-"):
        sys.exit(f"gxdistill: a command comes before {name}, as: gxdistill distill ...")
    nearest = difflib.get_close_matches(name, COMMANDS, 1, 0)
    sys.exit(f"gxdistill: unknown command {name!r}. Did you mean {nearest[0]!r}?")


@contextlib.contextmanager
def _kind_failures(command: flags.Command, leave: interrupts.Leave) -> Iterator[None]:
    """Ends in one line and a status what the user can mend, Ctrl-C and SIGTERM; others pass."""
    start = f"gxdistill {command.name}"
    try:
        yield
    except UserError as error:
        sys.exit(f"{start}: {' '.join(str(error).split())}")
    except KeyboardInterrupt as error:
        leave(interrupts.number_of(error))
    except (MemoryError, RuntimeError, AssertionError) as error:
        if fault := environment.platform_fault():
            sys.exit(f"{start}: {fault}")
        # XLA says it in several ways; one is "INTERNAL: ... Out of memory allocating ...".
        said = re.search("RESOURCE_EXHAUSTED|out of memory", str(error), re.IGNORECASE)
        if said is None and not isinstance(error, MemoryError):
            raise
        sys.exit(f"{start}: the memory does not suffice. {_lower(command)}")


def _lower(command: flags.Command) -> str:
    """Says what takes less memory: of a job its settings, of a package only its sender's."""
    if any(flag.name == "config" for flag in command.flags):
        return (
            "Lower distill.batch, distill.images_per_step, patch.size or the network's width, or "
            "raise data.downscale; of a package, take fewer networks."
        )
    return "Use a machine with more of it, or ask the sender for a smaller package."


@contextlib.contextmanager
def _quiet_pipe() -> Iterator[None]:
    """Ends quietly where nobody reads on, as in `gxdistill inspect x.gxd | head -1`."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        try:
            print(flush=True)  # Fails once more if it was the standard output.
        except BrokenPipeError:
            os._exit(_READER_GONE)  # sys.exit would flush once more, fail, and say so.
        raise


def _leave(command: flags.Command, *, is_program: bool, number: int) -> NoReturn:
    """Ends a command that a signal interrupted, in one line and the status of a shell.

    A program ends without Python's own end: what XLA's threads still compile would crash in it.
    Nothing on disk needs it, for all is written such that a kill leaves it whole.
    """
    word = interrupts.WORDS[signal.Signals(number)]
    log(f"gxdistill {command.name}: {word}; {command.interrupted}.")
    if is_program:
        with contextlib.suppress(OSError, RuntimeError):  # A thread may be writing just now.
            sys.stdout.flush()
        os._exit(128 + number)
    sys.exit(128 + number)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command; what the user can mend ends in one line and exit status 1.

    Args:
      arguments: of the command line; None are the program's own, and the process is then left at
        once where a signal ends the command.
    """
    is_program = arguments is None
    console.escape_what_cannot_be_written()
    words = list(sys.argv[1:] if arguments is None else arguments)
    with _quiet_pipe():
        answer = _answer(words)
        if answer is not None:
            print(answer, end="")
            return
        name, rest = _split(words)
        command = _command(name)

        def leave(number: int) -> NoReturn:
            _leave(command, is_program=is_program, number=number)

        with _kind_failures(command, leave), interrupts.heard(leave if is_program else None):
            environment.pin()
            command.run(flags.parse(command, rest))
