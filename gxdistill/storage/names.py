"""Names that others gave, and the one place where they become paths.

A package, a manifest or a table may call a thing anything: `../../x`, `/etc/x`, `C:x`, a device.
Whatever joins such a name to a folder does so by `child`, or by `below` for a path of several
names: both refuse what could lead elsewhere.
"""

import re
import unicodedata
from pathlib import Path, PurePosixPath
from typing import Any

from gxdistill.errors import UserError

_MAX_BYTES = 255  # Of a name, on all common file systems.
_PLAIN = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.~ -]*[A-Za-z0-9_~-])?")
_DRIVE = re.compile(r"[A-Za-z]:")
# Windows reads and writes a device, whatever follows the first dot.
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9]) *(?:\..*)?", re.IGNORECASE)
# OWASP, "CSV injection".
_FORMULA = re.compile(
    r"[\s\u200b-\u200f\u2060-\u2064\ufeff]*[=+@\-\uff1d\uff0b\uff0d\uff20]|[\t\r\n]"
)
_SHOWN = 60  # Characters of a name in a message.


class BadNameError(UserError):
    """A name that may not become a file's.

    Attributes:
      reason: what is wrong with it.
    """

    def __init__(self, name: str, reason: str):
        super().__init__(
            f"{shown(name)} cannot be the name of a file: it {reason}. Rename it; if it came from "
            f"others, ask them for a sound copy."
        )
        self.reason = reason


def cell(value: Any) -> Any:
    """Returns what stands for a value in a table, where no text is a formula to spreadsheets.

    A formula begins, after blanks and what is not seen, with `=`, `+`, `-` or `@`, also in their
    wide forms, or with a tab or a carriage return: it gets an apostrophe before it. Numbers stay,
    and what is no text becomes an escape.
    """
    if not isinstance(value, str):
        return value
    text = as_text(value)
    return f"'{text}" if _FORMULA.match(text) else text


def shown(name: str) -> str:
    """Returns a name in quotes for messages: short, with what cannot be printed as escapes."""
    whole = len(name) <= _SHOWN
    return repr(name if whole else f"{name[: _SHOWN // 2]}...{name[-_SHOWN // 2 :]}")


def as_text(name: str) -> str:
    """Returns a name as UTF-8 can hold it: what is no text becomes an escape."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def name_fault(name: str, *, portable: bool = True) -> str | None:
    """Tells what keeps a text from being a plain name, which stays in its folder.

    Args:
      name: of a file or folder, without those that it lies in.
      portable: whether it must be a name on every system, as all must that we write; what is only
        read may have any letters and signs that lead nowhere else.

    Returns:
      The fault, as a predicate of "it"; None of a plain name.
    """
    if name in ("", ".", ".."):
        return "leaves the folder" if name == ".." else "is empty or a dot"
    if "/" in name or "\\" in name:
        return "holds a slash" if "/" in name else "holds a backslash; folders are told by `/`"
    if any(unicodedata.category(char) in ("Cc", "Cs") for char in name):
        return "holds control characters or lone surrogates"
    if len(name.encode()) > _MAX_BYTES:
        return f"takes more than {_MAX_BYTES} bytes"
    if _DRIVE.match(name):
        return "names a drive"
    if portable and not _PLAIN.fullmatch(name):
        return "is not of letters A-Z, digits and `_ ~ -`, with dots and spaces inside only"
    return "names a device of Windows" if portable and _DEVICE.fullmatch(name) else None


def plain_name(name: str) -> str:
    """Returns a name that may become a file's on every system.

    Raises:
      BadNameError: it is none.
    """
    if fault := name_fault(name):
        raise BadNameError(name, fault)
    return name


def child(folder: Path, name: str, *, portable: bool = True) -> Path:
    """Returns the path of what a name stands for in a folder: never one outside it.

    Args:
      folder: where it lies or is to lie.
      name: as others gave it.
      portable: see `name_fault`.

    Raises:
      BadNameError: the name is not plain.
    """
    if fault := name_fault(name, portable=portable):
        raise BadNameError(name, fault)
    return folder / name


def below(folder: Path, path: str) -> Path:
    """Returns the path of a file to read that is named relative to a folder.

    `.` and doubled slashes are left out, as systems do; links are followed.

    Args:
      folder: that the file is said to be below.
      path: names of folders and of the file, joined by `/`.

    Raises:
      BadNameError: the path is absolute, goes up or is empty, or a name in it is not plain.
    """
    parts = PurePosixPath(path).parts
    if not parts:
        raise BadNameError(path, "is empty or a dot")
    if parts[0].startswith("/") or ".." in parts:
        raise BadNameError(path, "leaves the folder")
    for part in parts:
        folder = child(folder, part, portable=False)
    return folder
