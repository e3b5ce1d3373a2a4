"""Files in one file: a plain zip, in the one form that its content allows.

Nothing is compressed and no time, place or attribute is kept, so that equal members give equal
bytes. The reader takes no other form: it packs what it found anew and compares. Whatever else a zip
can hold (two members of one name, a directory that disagrees with the members, links, bombs, gaps,
comments, archives before or behind it) is therefore refused without a rule of its own, and nothing
is ever unpacked to the disk.
"""

import io
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

from gxdistill.errors import UserError

MAX_BYTES = (1 << 30) + (1 << 26)
_MAX_MEMBERS = 10_000
_PART = r"(?!\.{0,2}(?:/|\Z))[A-Za-z0-9_~%. -]{1,255}"
_NAME = re.compile(rf"{_PART}(?:/{_PART}){{0,7}}")


def pack(members: Mapping[str, bytes]) -> bytes:
    """Puts files into an archive, in the order of their names.

    Args:
      members: content by name: parts of letters, digits and `_~%. -`, joined by slashes.

    Raises:
      ValueError: a name that no archive may hold, or more than 1 GiB.
    """
    size = sum(map(len, members.values()))
    if size > MAX_BYTES or len(members) > _MAX_MEMBERS:
        raise ValueError(f"{len(members)} members of {size} bytes are more than an archive holds.")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as file:
        for name in sorted(members):
            if not _NAME.fullmatch(name):
                raise ValueError(f"A member cannot be named {name!r}.")
            info = zipfile.ZipInfo(name)  # the first day that a zip can name
            info.create_system, info.external_attr = 3, 0o100644 << 16
            file.writestr(info, members[name])
    return buffer.getvalue()


def unpack(content: bytes, where: Path) -> dict[str, bytes]:
    """Returns the files of an archive, by name.

    Args:
      content: of the archive; never more than this is allocated.
      where: it comes from; for messages.

    Raises:
      UserError: it is not just what `pack` makes of its members.
    """
    try:
        members = _members(content)
        whole = pack(members) == content
    except Exception as error:  # damaged bytes make a zip reader raise nearly anything
        # What is wrong may be a name of 64 KiB, in the message twice.
        reason = str(error) if len(str(error)) < 200 else f"{str(error)[:200]}..."
        raise UserError(
            f"{where} is no whole package: {reason}. Do not unpack it; get a fresh copy."
        ) from error
    if not whole:
        raise UserError(
            f"{where} holds more than its members, or was packed by another program. Get a fresh "
            f"copy."
        )
    return members


def _members(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        entries = file.infolist()
        stored = sum(entry.file_size for entry in entries)
        packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
        # Before anything is read: as it takes no room in the file, it is not there.
        if stored > len(content) or packed or len(entries) > _MAX_MEMBERS:
            raise ValueError("its members are compressed, or claim more than it holds")
        return {entry.filename: file.read(entry) for entry in entries}
