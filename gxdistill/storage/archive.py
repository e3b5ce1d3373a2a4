"""Files in one file: a plain zip, in the one form that its content allows.

Nothing is compressed and no time, place or attribute is kept, so that equal members give equal
bytes. The reader takes no other form: it makes each header anew from what it found and compares.
Whatever else a zip can hold (two members of one name, a directory that disagrees with the members,
links, bombs, gaps, comments, archives before or behind it) is therefore refused without a rule of
its own, and nothing is ever unpacked to the disk.
"""

import re
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

from gxdistill.errors import UserError

MAX_BYTES = (1 << 30) + (1 << 26)
_MAX_MEMBERS = 10_000
_NAME = re.compile(rb"(?!\.{0,2}(/|\Z))[\w~%. -]{1,255}(/(?!\.{0,2}(/|\Z))[\w~%. -]{1,255}){0,7}")

# Appnote 6.3, 4.3.7, 4.3.12 and 4.3.16. Version 2.0, no flag, stored; the first day a zip can name.
_LOCAL = struct.Struct("<4s5H3L2H")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_VERSION, _DATE, _UNIX, _FILE = 20, 0x21, 3 << 8, 0o100644 << 16
_LOCAL_MARK = b"PK\3\4"


def _local(name: bytes, content: bytes | memoryview) -> bytes:
    size = len(content)
    return name.join(
        [
            _LOCAL.pack(
                *(_LOCAL_MARK, _VERSION, 0, 0, 0, _DATE),
                *(zlib.crc32(content), size, size, len(name), 0),
            ),
            b"",
        ]
    )


def _directory(headers: list[bytes], end: int) -> bytes:
    """Makes what follows the members: a copy of each header with its offset, and the end mark."""
    parts, offset = [], 0
    for header in headers:
        crc, size, _, length, _ = _LOCAL.unpack_from(header)[-5:]
        entry = _ENTRY.pack(
            *(b"PK\1\2", _UNIX | _VERSION, _VERSION, 0, 0, 0, _DATE, crc, size, size, length),
            *(0, 0, 0, 0, _FILE, offset),
        )
        parts.append(entry + header[_LOCAL.size :])
        offset += len(header) + size
    entries, count = b"".join(parts), len(headers)
    return entries + _END.pack(b"PK\5\6", 0, 0, count, count, len(entries), end, 0)


def pack(members: Mapping[str, bytes]) -> bytes:
    """Puts files into an archive, in the order of their names.

    Args:
      members: content by name: parts of letters, digits and `_~%. -`, joined by slashes.

    Raises:
      ValueError: a name that no archive may hold, or more than 1 GiB.
    """
    parts: list[bytes] = []
    headers, size = [], 0
    for name in sorted(members):
        if not _NAME.fullmatch(name.encode()):
            raise ValueError(f"A member cannot be named {name!r}.")
        headers.append(_local(name.encode(), members[name]))
        parts += headers[-1], members[name]
        size += len(headers[-1]) + len(members[name])
    parts.append(_directory(headers, size))
    if size + len(parts[-1]) > MAX_BYTES or len(members) > _MAX_MEMBERS:
        raise ValueError(f"{len(members)} members of {size} bytes are more than an archive holds.")
    return b"".join(parts)


def unpack(content: bytes, where: Path) -> dict[str, memoryview]:
    """Returns the files of an archive, by name; allocates nothing but their index.

    Args:
      content: of the archive.
      where: it comes from; for messages.

    Raises:
      UserError: it is not just what `pack` makes of its members.
    """
    view, at = memoryview(content), 0
    members: dict[str, memoryview] = {}
    headers: list[bytes] = []
    before = b""
    while content[at : at + 4] == _LOCAL_MARK and at + _LOCAL.size <= len(content):
        *_, size, _, length, _ = _LOCAL.unpack_from(view, at)
        start = at + _LOCAL.size + length
        name, data = content[at + _LOCAL.size : start], view[start : start + size]
        if len(name) > 1000 or not _NAME.fullmatch(name):
            raise UserError(
                f"{where} holds a member named {name[:100]!r}, which no package may hold. Do not "
                f"unpack it; get a fresh copy from a sender you trust."
            )
        if name <= before or len(headers) == _MAX_MEMBERS:
            raise UserError(
                f"{where} holds member {name.decode()} twice or out of order, or more than "
                f"{_MAX_MEMBERS} members. Get a fresh copy."
            )
        header = _local(name, data)
        if content[at:start] != header:
            raise UserError(
                f"{where}: member {name.decode()} is damaged or cut short, or was packed by "
                f"another program. Get a fresh copy."
            )
        headers.append(header)
        members[name.decode()] = data
        before, at = name, start + size
    if not headers or content[at:] != _directory(headers, at):
        what = "its end is damaged or missing" if headers else "it does not begin as a zip does"
        raise UserError(f"{where} is no whole package: {what}. Get a fresh copy.")
    return members
