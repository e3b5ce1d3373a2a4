"""Who was served how much: a journal in which a request stands once, however often it was asked."""

import sqlite3
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from gxdistill.errors import UserError

_REMEMBERED_S = 86400.0  # For which a request is known to have been counted.
_PRUNE_S = 3600.0
_TABLES = """
CREATE TABLE IF NOT EXISTS requests (
  token TEXT NOT NULL, request TEXT NOT NULL, images INTEGER NOT NULL, at REAL NOT NULL,
  PRIMARY KEY (token, request)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS totals (
  token TEXT PRIMARY KEY, requests INTEGER NOT NULL, images INTEGER NOT NULL);
"""


class Served(NamedTuple):
    """A request that was answered.

    Attributes:
      token: its id.
      request: the identity that the client gave it.
      images: their number.
    """

    token: str
    request: str
    images: int


class Usage:
    """A journal that a kill leaves whole: SQLite, written before answers leave.

    A request is written in one transaction together with the totals, and never twice, so that one
    that is asked again after the server was killed is answered again and counted once.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time):
        """Opens or makes the journal.

        Raises:
          UserError: the file cannot be written, or is something else.
        """
        self._clock, self._pruned = clock, clock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Used by the batches' thread, and at the end closed by another.
            self._journal = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._journal.execute("PRAGMA journal_mode=WAL")
            self._journal.execute("PRAGMA synchronous=NORMAL")
            self._journal.executescript(_TABLES)
        except (OSError, sqlite3.Error) as error:
            raise UserError(
                f"{path} could not be opened as the journal of requests: {error}. Choose another "
                f"--workdir, or remove the file."
            ) from error

    def count(self, served: Iterable[Served]) -> None:
        """Writes down what was served; what stands there already stays as it is."""
        now = self._clock()
        journal = self._journal
        journal.execute("BEGIN IMMEDIATE")
        if now - self._pruned > _PRUNE_S:  # The totals stay.
            self._pruned = now
            journal.execute("DELETE FROM requests WHERE at < ?", (now - _REMEMBERED_S,))
        for token, request, images in served:
            new = journal.execute(
                "INSERT OR IGNORE INTO requests VALUES (?, ?, ?, ?)", (token, request, images, now)
            ).rowcount
            journal.execute(
                "INSERT INTO totals VALUES (?, ?, ?) ON CONFLICT (token) DO UPDATE SET "
                "requests = requests + excluded.requests, images = images + excluded.images",
                (token, new, new * images),
            )
        journal.execute("COMMIT")

    def totals(self) -> dict[str, tuple[int, int]]:
        """Returns requests and images by the id of their token."""
        rows = self._journal.execute("SELECT token, requests, images FROM totals")
        return {token: (requests, images) for token, requests, images in rows}

    def close(self) -> None:
        """Closes the journal."""
        self._journal.close()
