"""What long work shows: a line now and then, and a history that a resumed run goes on with."""

import json
import time
from pathlib import Path

from gxdistill import storage
from gxdistill.saying import Say
from gxdistill.storage.files import writing


class Progress:
    """Says how far a loop is, at most every few seconds: rate and time left."""

    def __init__(self, say: Say, what: str, first: int = 0, every: float = 5.0):
        """Starts the clock at item `first`; speaks every `every` seconds through `say`."""
        self.say, self.what, self.every = say, what, every
        self.first, self.began = first, time.monotonic()
        self.last = self.began

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Takes note that `done` of `total` items are done; `note` ends the line."""
        now = time.monotonic()
        if now - self.last < self.every and done < total:
            return
        self.last = now
        rate = (done - self.first) / max(now - self.began, 1e-9)
        left = (total - done) / rate if rate else 0
        self.say(f"{self.what}: {done}/{total}, {rate:.3g}/s, {left:.0f} s left{note}")


class History:
    """A JSON-lines file of what was seen along the way; a resumed run drops what it repeats."""

    def __init__(self, path: Path):
        """Names the file; it need not exist."""
        self.path = path

    def cut(self, step: int) -> None:
        """Drops the lines after outer step `step`, and half a line."""
        lines = self.path.read_text().splitlines(keepends=True) if self.path.exists() else []
        whole = (line for line in lines if line.endswith("}\n"))
        kept = [line for line in whole if json.loads(line)["step"] <= step]
        storage.write_text(self.path, "".join(kept))

    def add(self, **line: float) -> None:
        """Appends one line; `step` is among its keys."""
        with writing(self.path), self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
