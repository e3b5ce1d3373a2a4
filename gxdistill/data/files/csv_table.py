"""A table of comma-separated values: its header and its lines, or what else the file is."""

import csv
from collections.abc import Sequence
from pathlib import Path

from gxdistill.errors import UserError

_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def read(path: Path, fields: Sequence[str]) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Reads the table of a manifest.

    Args:
      path: of the file, UTF-8.
      fields: what its columns may be, for the message where there is none.

    Returns:
      The header, and for each row that is not empty its line in the file and its cells.

    Raises:
      UserError: there is no such table, by what the file is likely to be.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            lines = [(reader.line_num, cells) for cells in reader if cells]
    except FileNotFoundError as error:
        raise UserError(
            f"There is no manifest {path}. Write a CSV with the columns {', '.join(fields)} "
            f"(mask, site, split and spacing may be left out), or name another."
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"Manifest {path} is not UTF-8 text{_kind_of_bytes(path)}. Save it as UTF-8."
        ) from error
    except (OSError, csv.Error) as error:
        raise UserError(
            f"Manifest {path} cannot be read as CSV{_kind_of_bytes(path)}: {error}."
        ) from error
    if lines and lines[0][1] == ["sep=", ""]:  # What spreadsheets put before the header.
        lines = lines[1:]
    if any("\0" in cell for _, cells in lines[:1] for cell in cells):
        raise UserError(f"Manifest {path} is not UTF-8 text but UTF-16. Save it as UTF-8.")
    _check_separator(path, lines)
    if len(lines) < 2:
        raise UserError(f"Manifest {path} lists no image. Add a header and a row for each image.")
    header = [cell.strip() for cell in lines[0][1]]
    twice = [name for name in set(header) if name and header.count(name) > 1]
    if twice:
        raise UserError(
            f"Manifest {path} has columns of the same name: {', '.join(sorted(twice)[:5])}."
        )
    return header, lines[1:]


def _kind_of_bytes(path: Path) -> str:
    """What a file that is no text is likely to be, to be put into a message."""
    try:
        with path.open("rb") as file:
            head = file.read(4)
    except OSError:
        return ""
    if head in (b"\xff\xfe\0\0", b"\0\0\xfe\xff"):
        return " but UTF-32"
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return " but UTF-16"
    return "; it is a workbook: export the sheet as CSV" if head == b"PK\x03\x04" else ""


def _check_separator(path: Path, lines: Sequence[tuple[int, list[str]]]) -> None:
    """Refuses a file that another sign than the comma parts into cells."""
    for _, cells in lines[:1]:
        text = cells[0]
        for sign, name in _SEPARATORS.items():
            if len(cells) == 1 and (sign in text or text.strip() == f"sep={sign}"):
                raise UserError(
                    f"Manifest {path} has one column {text[:60]!r}: its cells seem to be parted by "
                    f"{name}. Save it with commas."
                )
