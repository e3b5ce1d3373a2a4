"""A history of what was seen along the way, which a resumed run goes on with."""

import json
import math
from pathlib import Path
from typing import Any

from gxdistill import storage
from gxdistill.jobs.events import EventFolder
from gxdistill.storage.files import writing


class History:
    """A JSON-lines file of what was seen along the way; a resumed run drops what it repeats."""

    def __init__(self, path: Path, events: EventFolder | None = None):
        """Names the file, which need not exist, and where its lines are events, too."""
        self.path = path
        self._events = events

    def cut(self, step: int) -> None:
        """Drops the lines after `step`, and half a line."""
        lines = self.path.read_text().splitlines(keepends=True) if self.path.exists() else []
        whole = (line for line in lines if line.endswith("}\n"))
        kept = [line for line in whole if json.loads(line)["step"] <= step]
        storage.write_text(self.path, "".join(kept))
        if self._events:
            self._events.restart(map(json.loads, kept))

    def last(self, name: str) -> float:
        """Returns the newest figure of a name; NaN where there is none."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        figures = [json.loads(line).get(name) for line in lines]
        return next((figure for figure in reversed(figures) if figure is not None), math.nan)

    def add(self, **line: Any) -> None:
        """Appends one line; `step` is among its keys."""
        with writing(self.path), self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        if self._events:
            self._events.add(line)
