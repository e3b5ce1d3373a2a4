import io
import os
import re
import struct
import time
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

from gxdistill import storage
from gxdistill.errors import UserError

WHERE = Path("there/x.gxd")
MEMBERS = {
    "README.md": b"# read me\n",
    "arrays/state/start.Dense 0%2E/.zarray": b"{}",
    "arrays/state/start.Dense 0%2E/0.0": np.arange(6, dtype=np.uint8).tobytes(),
    "arrays/orbax.checkpoint": b"",
    "z": bytes(300),
}


def _written_by_zipfile(members, *, date=(1980, 1, 1, 0, 0, 0), method=zipfile.ZIP_STORED):
    """The archive that the standard library writes, members in the given order."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members:
            info = zipfile.ZipInfo(name, date)
            info.create_system, info.external_attr = 3, 0o100644 << 16
            file.writestr(info, content, method)
    return buffer.getvalue()


def _renamed(was, now):
    """A sound archive of one member under a name that no writer would give it."""
    content = _written_by_zipfile([("placeholder"[: len(now)].ljust(len(now), "x"), b"x")])
    was = was[: len(now)].ljust(len(now), b"x")
    return content.replace(was, now)


def _refusal(content):
    with pytest.raises(UserError) as caught:
        storage.unpack(content, WHERE)
    assert str(caught.value).startswith(str(WHERE))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_members_come_back_in_the_order_of_their_names():
    members = storage.unpack(storage.pack(MEMBERS), WHERE)
    assert {name: bytes(content) for name, content in members.items()} == MEMBERS
    assert list(members) == sorted(MEMBERS)
    assert storage.pack(dict(reversed(MEMBERS.items()))) == storage.pack(MEMBERS)


def test_the_standard_library_writes_the_same_bytes_and_reads_them(tmp_path):
    content = storage.pack(MEMBERS)
    assert content == _written_by_zipfile(sorted(MEMBERS.items()))
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        assert file.testzip() is None
        file.extractall(tmp_path)
    assert storage.read_files(tmp_path) == MEMBERS


def test_every_changed_bit_is_found():
    members = {"a": b"one", "b/c": b"two"}
    content = storage.pack(members)
    for bit in range(8 * len(content)):
        raw = bytearray(content)
        raw[bit // 8] ^= 1 << bit % 8
        _refusal(bytes(raw))


def test_every_cut_and_every_addition_is_found():
    content = storage.pack({"a": b"one", "b/c": b"two"})
    for size in range(len(content)):
        _refusal(content[:size])
    for more in (b"\0", b"PK\3\4", b"PK\5\6" + bytes(18), content):
        _refusal(content + more)
        _refusal(more + content)
    for at in range(len(content) + 1):
        _refusal(content[:at] + b"\0" + content[at:])


@pytest.mark.parametrize(
    "name",
    [
        *(
            "../x",
            "/etc/passwd",
            "a/../b",
            "a/./b",
            "a//b",
            "a/",
            ".",
            "..",
            "a/..",
            "C:/x",
            "a\\b",
        ),
        *("a\nb", "a\0b", "ä", "a" * 256, "/".join("a" * 9), "*"),
    ],
)
def test_names_that_lead_elsewhere_are_refused(name):
    with pytest.raises(ValueError, match=re.escape(f"cannot be named {name!r}")):
        storage.pack({name: b"x"})
    # Zip readers mend such names: a zip that bears one is not what its mended form would be.
    _refusal(_renamed(b"placeholder", name.encode()))


def test_duplicates_and_disorder_are_refused():
    for first, second in (("a", "a"), ("b", "a"), ("a/b", "a")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the library warns of two members of one name
            content = _written_by_zipfile([(first, b"x"), (second, b"y")])
        _refusal(content)


def test_other_zips_of_the_same_members_are_refused():
    members = sorted(MEMBERS.items())
    packed_by_others = "was packed by another program"
    compressed = "its members are compressed"
    assert packed_by_others in _refusal(_written_by_zipfile(members, date=(2026, 1, 2, 3, 4, 6)))
    bomb = [("a", bytes(10**7))]
    assert compressed in _refusal(_written_by_zipfile(bomb, method=zipfile.ZIP_DEFLATED))
    content = _written_by_zipfile(members)
    link = content.replace(
        (0o100644 << 16).to_bytes(4, "little"), (0o120777 << 16).to_bytes(4, "little")
    )
    assert link != content
    assert packed_by_others in _refusal(link)
    _refusal(content[:-2] + b"\2\0hi")  # a comment
    assert "it is no zip file" in _refusal(b"")
    nested = storage.pack({"a": storage.pack(MEMBERS)})
    assert list(storage.unpack(nested, WHERE)) == ["a"]


def test_members_may_not_be_too_many():
    names = [f"{i:05d}" for i in range(10_001)]
    with pytest.raises(ValueError, match="are more than an archive holds"):
        storage.pack(dict.fromkeys(names, b""))
    content = _written_by_zipfile([(name, b"") for name in names])
    assert "its 10001 members are more than 10000" in _refusal(content)
    # A directory of a million entries is not read, whatever its end says of their number.
    entries = content[content.index(b"PK\1\2") : content.rindex(b"PK\5\6")] * 20
    harmed = content[:30] + entries + content[-22:]
    tracemalloc.start()
    _refusal(harmed)
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


def test_members_that_overlap_are_not_summed_up():
    large, count = 1 << 20, 5000
    names = [f"{i:04d}" for i in range(count)]
    sound = storage.pack({names[0]: bytes(large)})
    directory = sound.rindex(b"PK\1\2")
    entry, end = sound[directory:-22], bytearray(sound[-22:])
    entries = b"".join(entry.replace(b"0000", name.encode()) for name in names)
    end[8:16] = struct.pack("<2HL", count, count, len(entries))
    began = time.process_time()
    assert "claim more than it holds" in _refusal(sound[:directory] + entries + bytes(end))
    assert time.process_time() - began < 1  # Their sums, of 5 GiB, would take longer.


def test_a_declared_size_is_not_believed():
    sound = storage.pack({"a": b"one"})
    entry = sound.index(b"PK\1\2")
    for size in (4, 2**31, 2**32 - 1):
        content = bytearray(sound)
        for at in (18, 22, entry + 20, entry + 24):
            content[at : at + 4] = size.to_bytes(4, "little")
        _refusal(bytes(content))


def test_files_are_read_up_to_a_bound(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert storage.read_bytes(path, 5) == b"12345"
    with pytest.raises(UserError, match="is larger than 4 bytes"):
        storage.read_bytes(path, 4)
    os.mkfifo(tmp_path / "pipe")
    for other in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(UserError, match="could not be read: it is no regular file"):
            storage.read_bytes(other, 4)


def test_a_scratch_folder_is_gone_after_use(tmp_path):
    path = tmp_path / "deep" / "x.gxd"
    with storage.scratch_folder(path) as folder:
        (folder / "file").touch()
        assert folder.parent == path.parent
    with pytest.raises(KeyError), storage.scratch_folder(path) as folder:
        raise KeyError
    assert list(path.parent.iterdir()) == []
    left = path.with_name(".x.gxd.gx-tmp-00000000")  # by a killed writer
    left.mkdir()
    with storage.scratch_folder(path):
        assert not left.exists()


def test_two_equal_keys_of_one_object_are_refused():
    assert storage.parse_json(b'{"a": {"b": 1}, "b": [{}]}', "x") == {"a": {"b": 1}, "b": [{}]}
    for content in (b'{"a": 1, "a": 1}', b'{"b": [{"a": 1, "c": 2, "a": 3}]}'):
        with pytest.raises(UserError, match="x is not valid JSON: the key 'a' stands twice"):
            storage.parse_json(content, "x")
