"""The command line: which command is meant, and how its failures are told.

Nothing costly is imported for the help; each command imports what it needs when it runs.
"""

import contextlib
import difflib
import os
import re
import sys
from collections.abc import Iterator, Sequence

from gxdistill import __version__
from gxdistill.cli import config, distillation, flags, packages
from gxdistill.errors import UserError
from gxdistill.runtime import interrupts
from gxdistill.runtime.console import log

# A task's file of commands is named here, and nowhere else.
COMMANDS = {command.name: command for task in (distillation, packages) for command in task.COMMANDS}

_USAGE = """gxdistill: distils private radiographs into a handful of synthetic soft-label images.

usage: gxdistill COMMAND [ARGUMENTS] [FLAGS]

Commands:
{commands}

`gxdistill COMMAND --help` lists the flags of a command, `gxdistill --version` says the version.
Values are written --flag=value or --flag value.
Configs that come along, for --config=NAME: {configs}.
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
    return None if rest == words else flags.page(_command(rest[0]))


def _command(name: str) -> flags.Command:
    if name in COMMANDS:
        return COMMANDS[name]
    if name.startswith("-"):
        sys.exit(f"gxdistill: a command comes before {name}, as: gxdistill distill ...")
    nearest = difflib.get_close_matches(name, COMMANDS, 1, 0)
    sys.exit(f"gxdistill: unknown command {name!r}. Did you mean {nearest[0]!r}?")


@contextlib.contextmanager
def _kind_failures(command: flags.Command) -> Iterator[None]:
    """Ends in one line and a status what the user can mend, Ctrl-C and SIGTERM; others pass."""
    start = f"gxdistill {command.name}"
    try:
        yield
    except UserError as error:
        sys.exit(f"{start}: {' '.join(str(error).split())}")
    except interrupts.Terminated:
        log(f"{start}: terminated; {command.interrupted}.")
        sys.exit(143)
    except KeyboardInterrupt:
        log(f"{start}: interrupted; {command.interrupted}.")
        sys.exit(130)
    except (MemoryError, RuntimeError) as error:
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command; what the user can mend ends in one line and exit status 1."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    with _quiet_pipe():
        answer = _answer(words)
        if answer is not None:
            print(answer, end="")
            return
        command = _command(words[0])
        with _kind_failures(command), interrupts.sigterm_raises(), interrupts.never_lost():
            command.run(flags.parse(command, words[1:]))
