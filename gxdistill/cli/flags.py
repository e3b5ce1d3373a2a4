"""What a command is: a row of a table, from which argparse reads its flags and prints its help."""

import argparse
import dataclasses
import difflib
import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from gxdistill.errors import UserError

WIDTH = 96  # Columns of a help page, whatever the terminal has.


def text(value: str) -> str:
    """Reads a value that is taken as it is, and not empty."""
    if not value:
        raise argparse.ArgumentTypeError("a value is missing")
    return value


def path(value: str) -> Path:
    """Reads a path, relative to the working directory."""
    return Path(text(value)).absolute()


def names(value: str) -> tuple[str, ...]:
    """Reads several names, parted by commas."""
    return tuple(text(name.strip()) for name in value.split(","))


def whole(low: int, high: int = 2**32 - 1) -> Callable[[str], int]:
    """Builds the reader of a whole number from `low` to `high`."""

    def read(value: str) -> int:
        try:
            number = int(value)
        except ValueError:
            number = low - 1
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(
                f"{value!r} is not a whole number from {low} to {high}"
            )
        return number

    return read


def non_negative(value: str) -> float:
    """Reads a finite number of at least 0."""
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{value!r} is not a non-negative number")
    return number


def share(value: str) -> float:
    """Reads a share from 0 to 1."""
    number = non_negative(value)
    if number > 1:
        raise argparse.ArgumentTypeError(f"{value!r} is not a share from 0 to 1")
    return number


@dataclasses.dataclass(frozen=True)
class Flag:
    """A flag of a command, written `--NAME VALUE` or `--NAME=VALUE`.

    Attributes:
      name: without its dashes.
      value: what the help calls its value; none for a switch, which takes no value.
      help: what it is for, and what holds where it is not given.
      read: reads its value.
      has_fields: takes `--NAME.FIELD=VALUE` too. These are kept as they are, one word each, in
        `fields` of the options.
    """

    name: str
    value: str
    help: str
    read: Callable[[str], object] = text
    has_fields: bool = False


@dataclasses.dataclass(frozen=True)
class Command:
    """A command of the command line.

    Attributes:
      name: of the command.
      summary: what it does, in a line.
      run: takes the values of its flags by their names, and its arguments as `paths`.
      flags: all it has, in the order of the help.
      arguments: its arguments, all of them paths, in words: "PACKAGE IMAGE...", where the dots
        stand for more of the last one.
      example: a call of it, without the program's name.
      interrupted: what starting it again does after Ctrl-C or SIGTERM.
    """

    name: str
    summary: str
    run: Callable[[argparse.Namespace], None]
    flags: tuple[Flag, ...] = ()
    arguments: str = ""
    example: str = ""
    interrupted: str = "nothing is kept; the same command starts anew"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Leaves it to the caller how a fault is told; argparse prints its usage and exits."""
        raise UserError(f"{message.removeprefix('argument ')}.")


def _parser(command: Command) -> _Parser:
    formatter = functools.partial(argparse.HelpFormatter, max_help_position=28, width=WIDTH)
    parts = (command.name, command.arguments, "[FLAGS]" if command.flags else "")
    parser = _Parser(
        usage=f"gxdistill {' '.join(filter(None, parts))}",
        description=f"{command.summary[0].upper()}{command.summary[1:]}.",
        epilog=f"example: gxdistill {command.example}" if command.example else None,
        add_help=False,
        allow_abbrev=False,
        formatter_class=formatter,
    )
    group = parser.add_argument_group("flags")
    for flag in command.flags:
        if flag.value:
            group.add_argument(f"--{flag.name}", metavar=flag.value, type=flag.read, help=flag.help)
        else:
            group.add_argument(f"--{flag.name}", action="store_true", help=flag.help)
    return parser


def page(command: Command) -> str:
    """Describes a command and its flags, for people."""
    return _parser(command).format_help()


def parse(command: Command, words: Sequence[str]) -> argparse.Namespace:
    """Reads what stands behind the name of a command.

    Returns:
      The value of each flag by its name, None where it is not given; the arguments as `paths`, and
      `fields`, each written `--NAME.FIELD=VALUE`.

    Raises:
      UserError: a flag is unknown or its value unfit, or arguments are missing or too many.
    """
    fields, others = _take_fields(command, words)
    # argparse is not told of arguments: it leaves them, wherever they stand, and in their order.
    options, rest = _parser(command).parse_known_args(others)
    for word in rest:
        if word.startswith("-"):
            raise UserError(_unknown(command, word))
    least = len(command.arguments.split())
    if len(rest) > least == 0:
        raise UserError(
            f"unexpected {rest[0]!r}: {command.name} takes flags alone, as --NAME=VALUE."
        )
    if len(rest) < least or (len(rest) > least and not command.arguments.endswith("...")):
        raise UserError(f"name just {command.arguments}, as: gxdistill {command.example}")
    options.fields, options.paths = fields, [path(word) for word in rest]
    return options


def _take_fields(command: Command, words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Parts the fields of flags, which argparse cannot know, from the other words."""
    prefixes = tuple(f"--{flag.name}." for flag in command.flags if flag.has_fields)
    fields, others, waiting = [], [], list(words)
    while waiting:
        word = waiting.pop(0)
        if not word.startswith(prefixes):
            others.append(word)
        elif "=" in word or not waiting or waiting[0].startswith("--"):
            fields.append(word)
        else:
            fields.append(f"{word}={waiting.pop(0)}")
    return fields, others


def _unknown(command: Command, word: str) -> str:
    typed = word.partition("=")[0]
    known = [f"--{flag.name}" for flag in command.flags]
    if not known:
        return f"unknown flag {typed}; gxdistill {command.name} has none."
    nearest = difflib.get_close_matches(typed, known, 1, 0)[0]
    return (
        f"unknown flag {typed}. Did you mean {nearest}? "
        f"All are listed by `gxdistill {command.name} --help`."
    )
