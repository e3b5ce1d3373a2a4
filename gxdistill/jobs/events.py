"""Events for TensorBoard, written without TensorFlow."""

import time
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gxdistill.errors import UserError
from gxdistill.storage.files import writing


class EventFolder:
    """A folder of scalars by step, one event file; it is made anew from what a run resumes with.

    TensorBoard reads all files of a folder: a second file beside the first would show each step
    that both hold twice.
    """

    def __init__(self, path: Path):
        """Names the folder; it need not exist."""
        self.path = path
        self._writer: Any = None

    def restart(self, lines: Iterable[Mapping[str, float]]) -> None:
        """Replaces the events in the folder by those of `lines`.

        Raises:
          UserError: the library is not installed, or the folder cannot be written.
        """
        try:
            from tensorboardX.event_file_writer import EventsWriter
        except ImportError as error:
            raise UserError(
                "config.log is 'tensorboard', and the library tensorboardX is not installed. "
                "Install it by `pip install tensorboardX`, or set --config.log=none."
            ) from error
        if self._writer is not None:
            self._writer.close()
        with writing(self.path):
            for old in self.path.glob("events.out.tfevents.*"):
                old.unlink()
            self.path.mkdir(parents=True, exist_ok=True)
            # Not SummaryWriter: its flush does not wait for the thread that it writes by.
            self._writer = EventsWriter(str(self.path / "events"))
            weakref.finalize(self, self._writer.close)
            for line in lines:
                self._put(line)
            self._writer.flush()

    def add(self, line: Mapping[str, float]) -> None:
        """Writes the figures of one line at its `step`, and hands them to the file at once."""
        if self._writer is None:
            self.restart(())
        with writing(self.path):
            self._put(line)
            self._writer.flush()

    def _put(self, line: Mapping[str, float]) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        values = [
            Summary.Value(tag=name, simple_value=figure)
            for name, figure in line.items()
            if name != "step"
        ]
        summary = Summary(value=values)
        event = Event(wall_time=time.time(), step=int(line["step"]), summary=summary)
        self._writer.write_event(event)
