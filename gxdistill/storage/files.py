"""Files and folders that are never half written: made under a fresh name, synced, renamed."""

import contextlib
import errno
import hashlib
import io
import json
import os
import re
import reprlib
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gxdistill.errors import UserError
from gxdistill.storage.names import plain_name

_MAX_JSON_BYTES = 16 << 20
# What a killed writer leaves behind: `.NAME.gx-old`, always whole, and `.NAME.gx-tmp-*`, never.
_LEFTOVER = re.compile(r"\.(?P<name>.+)\.gx-(?P<kind>old|tmp-[0-9a-f]{8})")


@contextlib.contextmanager
def _kindly(done: str, path: Path, way_out: str) -> Iterator[None]:
    # Full disks and closed doors are the user's to mend.
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{path} could not be {done}: {reason}. {way_out}") from error


def writing(path: Path) -> contextlib.AbstractContextManager[None]:
    """Turns an `OSError` of the block into a `UserError` that `path` could not be written."""
    return _kindly("written", path, "Make room or choose another place; nothing was half written.")


def reading(path: Path) -> contextlib.AbstractContextManager[None]:
    """Turns an `OSError` of the block into a `UserError` that `path` could not be read."""
    return _kindly("read", path, "Check the path and the permissions.")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        reason = f"{folder} is a file and no folder"
        raise NotADirectoryError(errno.ENOTDIR, reason) from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fresh_name(path: Path) -> Path:
    """Returns a free name beside `path`; `tidy` deletes what a killed writer left there."""
    return path.with_name(f".{path.name}.gx-tmp-{secrets.token_hex(4)}")


def _old(path: Path) -> Path:
    return path.with_name(f".{path.name}.gx-old")


def _discard(path: Path, home: Path) -> None:
    """Deletes a file or folder; renamed first, so that no half of it is taken for the whole."""
    doomed = fresh_name(home)
    os.rename(path, doomed)
    if doomed.is_dir():
        shutil.rmtree(doomed)
    else:
        doomed.unlink()


def tidy(folder: Path, name: str | None = None) -> None:
    """Ends what killed writers left: recovers folders about to be replaced, deletes the unfinished.

    Args:
      folder: where to look; not below.
      name: tidies only after writers of this entry of the folder; None for all.

    Raises:
      UserError: the folder cannot be read or written.
    """
    with writing(folder):
        for entry in list(folder.iterdir()):
            match = _LEFTOVER.fullmatch(entry.name)
            if match is None or name not in (None, match["name"]):
                continue
            home = folder / match["name"]
            if match["kind"] == "old" and not home.exists():
                os.rename(entry, home)
            else:
                _discard(entry, home)


def find_folder(path: Path) -> Path:
    """Returns where the folder that was written to `path` lies whole.

    That is `path`, but for the moment of a swap, where a kill may have left it beside its place.
    """
    path = path.absolute()
    return _old(path) if not path.exists() and _old(path).is_dir() else path


def remove_folder(path: Path) -> None:
    """Deletes a folder such that a kill leaves it whole or gone.

    Raises:
      UserError: it cannot be deleted.
    """
    with writing(path):
        _discard(path, path)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file, and its parent folders, at one stroke.

    Raises:
      UserError: the disk is full or the place not writable; a former file is then unchanged.
    """
    with writing(path):
        _make_folder(path.parent)
        tidy(path.parent, path.name)
        temp = fresh_name(path)
        try:
            with temp.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temp, path)
        finally:
            temp.unlink(missing_ok=True)
        _sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 text file as `write_bytes` does."""
    write_bytes(path, text.encode())


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Writes an `.npz` file of named arrays as `write_bytes` does; text is of dtype `str`.

    Raises:
      UserError: as `write_bytes`; or a name that may not become a file's, which it is once the
        archive is unpacked.
      ValueError: an array of Python objects, which NumPy would pickle.
    """
    for name, array in arrays.items():
        plain_name(f"{name}.npy")
        if np.asarray(array).dtype.hasobject:
            raise ValueError(f"`{name}` holds Python objects; pass numbers or text.")
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # NumPy takes an array for a flag
    write_bytes(path, buffer.getvalue())


def _plain(value: Any) -> Any:
    if hasattr(value, "__array__"):
        return np.asarray(value).tolist()
    raise TypeError(f"{type(value).__name__} {value!r} cannot be written as JSON.")


def json_text(value: Any) -> str:
    """Returns the one way to write `value`, NumPy scalars and arrays too, as JSON.

    Raises:
      ValueError: NaN or infinity in `value`.
      TypeError: it holds what JSON cannot.
    """
    # NaN and infinity are no JSON: other readers refuse the whole file.
    return json.dumps(value, default=_plain, sort_keys=True, indent=2, allow_nan=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Writes `json_text(value)` at one stroke.

    Raises:
      UserError: as `write_bytes`.
      ValueError, TypeError: as `json_text`.
    """
    write_text(path, json_text(value))


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """Reads a file, and no more of it than `max_bytes`.

    Raises:
      UserError: it is missing, no regular file, or larger.
    """
    with reading(path), _open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise UserError(f"{path} is larger than {max_bytes} bytes: no file of ours.")
        return file.read(size)  # Python allocates at once what it is asked to read


def read_head(path: Path, count: int) -> bytes:
    """Reads the first `count` bytes of a file, or all where there are fewer.

    Raises:
      UserError: it is missing, or no regular file.
    """
    with reading(path), _open_regular(path) as file:
        return file.read(count)


def _open_regular(path: Path) -> BinaryIO:
    # A pipe may wait for ever, be it to be opened or to be read, and a device never end.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file")
    return os.fdopen(descriptor, "rb")


def read_files(folder: Path) -> dict[str, bytes]:
    """Reads all files below a folder of our own, by their path in it."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Of two equal keys, programs differ in which they take.
    value: dict[str, Any] = {}
    for key, content in pairs:
        if key in value:
            raise ValueError(f"the key {reprlib.repr(key)} stands twice in one object")
        value[key] = content
    return value


def parse_json(content: bytes, where: Path | str) -> dict[str, Any]:
    """Reads a JSON object from the bytes of a file.

    Raises:
      UserError: not JSON, or not an object, or one with a key twice; `where` names it.
    """
    try:
        value = json.loads(content, object_pairs_hook=_once)
        # Refuses NaN, and 1e999, which Python reads as infinity; without the spaces of
        # `json_text`, which of nested lists are a thousand times their size.
        json.dumps(value, allow_nan=False)
        json.dumps(value, ensure_ascii=False).encode()  # and half a character, no text anywhere
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not valid JSON: {error}. Get a fresh copy.") from error
    if not isinstance(value, dict):
        raise UserError(f"{where} holds no JSON object. Get a fresh copy.")
    return value


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object of at most 16 MiB.

    Raises:
      UserError: the file is missing, too large, not JSON, or not an object.
    """
    return parse_json(read_bytes(path, _MAX_JSON_BYTES), path)


def seal(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the record as JSON would return it, with its own SHA-256 under "sha256"."""
    value = json.loads(json_text({k: v for k, v in record.items() if k != "sha256"}))
    return {**value, "sha256": hashlib.sha256(json_text(value).encode()).hexdigest()}


def check_seal(record: Mapping[str, Any], path: Path) -> None:
    """Refuses a record that was changed after `seal`; `path` names it in the message.

    Raises:
      UserError: the digest is missing or another.
    """
    if seal(record)["sha256"] != record.get("sha256"):
        raise UserError(
            f"{path} was changed after it was written: its SHA-256 does not match. "
            f"Get a fresh copy, or write it anew."
        )


@contextlib.contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Yields an empty folder beside `path`, on the same disk, that is gone when the block ends.

    Raises:
      UserError: the disk is full or the place not writable.
    """
    with writing(path):
        _make_folder(path.parent)
        tidy(path.parent, path.name)
        temp = fresh_name(path)
        try:
            temp.mkdir()
            yield temp
        finally:
            shutil.rmtree(temp, ignore_errors=True)


@contextlib.contextmanager
def fresh_folder(path: Path) -> Iterator[Path]:
    """Yields an empty folder that takes the place of `path` when the block ends without error.

    A folder cannot be renamed over another that holds something, so the old one is renamed away
    first. A kill in between leaves it whole under a hidden name, where `find_folder` sees it; the
    next writer puts it back. An error in the block leaves all as it was.

    Raises:
      UserError: the disk is full or the place not writable.
    """
    path = path.resolve()
    with writing(path):
        if path.is_file():
            raise NotADirectoryError(errno.ENOTDIR, "it is a file and no folder")
        _make_folder(path.parent)
        try:
            with scratch_folder(path) as temp:
                yield temp
                for folder, _, files in os.walk(temp):
                    for entry in (*files, "."):
                        _sync(Path(folder, entry))
                if path.exists():
                    os.rename(path, _old(path))
                os.rename(temp, path)
                _sync(path.parent)
        finally:
            tidy(path.parent, path.name)
