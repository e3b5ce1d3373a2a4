"""A job's working folder: who works in it, of which settings it is, what was seen along the way."""

import contextlib
import dataclasses
import errno
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gxdistill import storage
from gxdistill.errors import UserError
from gxdistill.jobs.history import History
from gxdistill.pytrees import Metadata
from gxdistill.storage.files import writing

_SETTINGS = "settings.json"  # Of the run whose checkpoints lie beside it.
_LOCK = ".lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # Of a file system.
_held: set[Path] = set()  # By this process: stages of one job may hold it one within the other.


@dataclasses.dataclass(frozen=True)
class Workdir:
    """A working folder; it need not exist before something is written.

    Attributes:
      path: of the folder.
    """

    path: Path

    def __truediv__(self, name: str) -> Path:
        """Names a file in the folder."""
        return self.path / name

    def __str__(self) -> str:
        """As people see it."""
        return str(self.path)

    @property
    def history(self) -> History:
        """What was seen along the way, `history.jsonl`."""
        return History(self.path / "history.jsonl")

    @property
    def checkpoints(self) -> Path:
        """The folder of the main loop's checkpoints."""
        return self.path / "checkpoints"

    @contextlib.contextmanager
    def locked(self, what: str) -> Iterator[None]:
        """Keeps other processes out while work is done.

        The system itself lets go of the lock when its process ends, however it ends. Where there
        are no such locks (Windows, some network file systems), none is taken.

        Args:
          what: is done, in words, for the one who is kept out.

        Raises:
          UserError: another process works here; it is named.
        """
        path = (self.path / _LOCK).absolute()
        if path in _held or find_spec("fcntl") is None:
            yield
            return
        with writing(path):
            new = [folder for folder in path.parents if not folder.exists()]
            descriptor = self._take(path)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()}, {what}\n".encode(), 0)
        _held.add(path)
        try:
            yield
        finally:
            _held.discard(path)
            path.unlink(missing_ok=True)
            os.close(descriptor)
            with contextlib.suppress(OSError):  # Of a folder in which something was made.
                for folder in new:  # A job that was refused leaves nothing behind.
                    folder.rmdir()

    def _take(self, path: Path) -> int:
        import fcntl

        while True:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            except FileNotFoundError:  # Another job was refused, and took its folder away.
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # The file may have been removed by its holder since it was opened.
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(descriptor), path.stat()):
                        return descriptor
            except BlockingIOError as error:
                holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
                os.close(descriptor)
                raise UserError(
                    f"{self.path} is in use by {holder or 'another process'}. Wait until it ends, "
                    f"or choose another --workdir."
                ) from error
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                return descriptor
            os.close(descriptor)

    def write_settings(self, identity: Metadata) -> None:
        """Writes what the results in the folder depend on."""
        storage.write_json(self.path / _SETTINGS, identity)

    def check_same(self, identity: Metadata) -> None:
        """Refuses to go on with, or to replace, a run of other settings.

        Raises:
          UserError: naming what differs.
        """
        path = self.path / _SETTINGS
        if not path.exists():
            return
        was, now = (dict(_flat(tree)) for tree in (storage.read_json(path), identity))
        changed = sorted(k for k in was.keys() | now.keys() if was.get(k) != now.get(k))
        if changed:
            what = ", ".join(f"{k} (was {was.get(k)!r}, is {now.get(k)!r})" for k in changed[:5])
            raise UserError(
                f"{self.path} holds a run with other settings: {what}. Choose another --workdir, "
                f"or the settings of before."
            )


def _flat(tree: Metadata, at: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{at}{key}.")
        else:
            yield f"{at}{key}", value
