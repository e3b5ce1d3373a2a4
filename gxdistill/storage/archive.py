"""Files in one file: a plain zip, in the one form that its content allows.

Nothing is compressed and no time, place or attribute is kept, so that equal members give equal
bytes. The reader takes no other form: it lays out what it found anew and compares. Whatever else a
zip can hold (two members of one name, a directory that disagrees with the members, links, bombs,
gaps, comments, archives before or behind it) is therefore refused without a rule of its own, and
nothing is ever unpacked to the disk. Members are views of the archive's bytes: reading it takes no
memory but for their names.
"""

import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from gxdistill.errors import UserError

MAX_BYTES = (1 << 30) + (1 << 26)
_MAX_MEMBERS = 10_000
_PART = r"(?!\.{0,2}(?:/|\Z))[A-Za-z0-9_~%. -]{1,255}"
_NAME = re.compile(rf"{_PART}(?:/{_PART}){{0,7}}")

# The three records of APPNOTE 6.3, little-endian, and what of them is the same in all archives:
# version needed 2.0, no flags, stored, 1980-01-01 at midnight.
_LOCAL, _ENTRY, _END = (struct.Struct(f"<4s{rest}") for rest in ("5H3L2H", "6H3L5H2L", "4H2LH"))
_COMMON = (20, 0, 0, 0, 0x21)
_UNIX, _REGULAR = 0x0314, 0o100644 << 16  # Made by; a regular file, rw-r--r--.

Content = bytes | memoryview


def pack(members: Mapping[str, Content]) -> bytes:
    """Puts files into an archive, in the order of their names.

    Args:
      members: content by name: parts of letters, digits and `_~%. -`, joined by slashes.

    Raises:
      ValueError: a name that no archive may hold, or more than 1 GiB.
    """
    size = sum(map(len, members.values()))
    if size > MAX_BYTES or len(members) > _MAX_MEMBERS:
        raise ValueError(f"{len(members)} members of {size} bytes are more than an archive holds.")
    return b"".join(_parts(members))


def unpack(content: bytes, where: Path) -> dict[str, Content]:
    """Returns the files of an archive, by name.

    Args:
      content: of the archive, of which the files are views.
      where: it comes from; for messages.

    Raises:
      UserError: it is not just what `pack` makes of its members.
    """
    try:
        members = _members(memoryview(content))
        whole = _is_joined(_parts(members), memoryview(content))
    except (ValueError, struct.error) as error:
        # What is wrong may be a name of 64 KiB, in the message twice.
        reason = str(error) if len(str(error)) < 200 else f"{str(error)[:200]}..."
        raise UserError(
            f"{where} is no whole package: {reason}. Do not unpack it; get a fresh copy."
        ) from error
    if not whole:
        raise UserError(
            f"{where} was damaged or changed, holds more than its members, or was packed by "
            f"another program. Get a fresh copy."
        )
    return members


def _parts(members: Mapping[str, Content]) -> Iterator[Content]:
    """Lays an archive out: parts that joined are its bytes."""
    at, directory = 0, []
    for name in sorted(members):
        if not _NAME.fullmatch(name):
            raise ValueError(f"A member cannot be named {name!r}.")
        raw, content = name.encode(), members[name]
        common = (*_COMMON, zlib.crc32(content), len(content), len(content), len(raw), 0)
        directory.append(
            _ENTRY.pack(b"PK\1\2", _UNIX, *common, 0, 0, 0, _REGULAR, at) + raw,
        )
        yield _LOCAL.pack(b"PK\3\4", *common) + raw
        yield content
        at += _LOCAL.size + len(raw) + len(content)
    size, count = sum(map(len, directory)), len(directory)
    yield from directory
    yield _END.pack(b"PK\5\6", 0, 0, count, count, size, at, 0)


def _is_joined(parts: Iterator[Content], content: memoryview) -> bool:
    at = 0
    for part in parts:
        if content[at : at + len(part)] != part:
            return False
        at += len(part)
    return at == len(content)


def _members(content: memoryview) -> dict[str, Content]:
    """Finds the members that the directory names, true or not, which `unpack` tells."""
    if len(content) < _END.size:
        raise ValueError("it is no zip file")
    *_, count, _, start, _ = _END.unpack(content[-_END.size :])
    if count > _MAX_MEMBERS:
        raise ValueError(f"its {count} members are more than {_MAX_MEMBERS}")
    members: dict[str, Content] = {}
    total = 0
    for _ in range(count):
        entry = _ENTRY.unpack_from(content, start)
        method, stored, unpacked, length, offset = *(entry[i] for i in (4, 8, 9, 10)), entry[-1]
        total += stored
        # Before anything is looked at: overlapping members could be summed up for hours.
        if method or stored != unpacked or total > len(content):
            raise ValueError("its members are compressed, or claim more than it holds")
        raw = bytes(content[start + _ENTRY.size :][:length])
        begin = offset + _LOCAL.size + length
        members[raw.decode("ascii")] = content[begin : begin + stored]
        start += _ENTRY.size + length
    return members
