"""What each step of `benchmarks.gpu` knows and may say."""

import dataclasses
import json
import os
import time
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.merge import REHEARSAL
from benchmarks.record import Measured, record

_MARGIN = 3.0  # Seconds that a step keeps to write down what it has.


class SkippedError(Exception):
    """What a step needs is not here; the message says what."""


class UnfinishedError(Exception):
    """The time did not suffice; the same step goes on where it can."""


@dataclasses.dataclass(frozen=True)
class Context:
    """What a step knows.

    Attributes:
      name: of the step.
      out: folder of figures, logs and working folders.
      scale: "full", or "small" for a rehearsal.
      data: folder of the public data sets; None where there is none.
      trace: whether profiles are kept.
      price: of a device for an hour.
      until: when the step must end, by `time.monotonic`.
    """

    name: str
    out: Path
    scale: str
    data: Path | None
    trace: bool
    price: float
    until: float
    _began: os.times_result = dataclasses.field(default_factory=os.times)

    @property
    def small(self) -> bool:
        """Whether this is a rehearsal."""
        return self.scale == "small"

    @property
    def seconds(self) -> float:
        """Seconds that are left, but for a margin."""
        return self.until - time.monotonic() - _MARGIN

    @cached_property
    def device(self) -> dict[str, Any]:
        """What the step `device` wrote down."""
        known: dict[str, Any] = json.loads((self.out / "device.json").read_text("utf-8"))
        return known

    def target(self) -> str:
        """Names the description of the device.

        Raises:
          SkippedError: there is none.
        """
        if self.device["target"] is None:
            raise SkippedError(
                f"no file of gxdistill/plan/descriptions tells the peaks of {self.device['kind']}"
            )
        return str(self.device["target"])

    def log(self, name: str) -> Path:
        """Names the file of what a command of this step prints."""
        return self.out / "logs" / f"{self.name}_{name}.log"

    def add(self, case: str, *rows: Measured) -> None:
        """Appends figures, those of a rehearsal under names of their own."""
        case = REHEARSAL * self.small + case
        command = f"python -m benchmarks.gpu --out=FOLDER --only {self.name}"
        command += " --scale=small" * self.small + " --data=FOLDER" * (self.data is not None)
        now = os.times()
        for row in rows:
            record(
                case,
                **row._asdict(),
                command=command,
                cpu_s=sum(now[:4]) - sum(self._began[:4]),
                wall_s=now.elapsed - self._began.elapsed,
                folder=self.out / "results",
                device=self.device["name"],
            )
        print(json.dumps({"case": case} | {row.metric: row.value for row in rows}), flush=True)
