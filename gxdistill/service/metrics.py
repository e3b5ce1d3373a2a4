"""Figures in the text format of Prometheus, version 0.0.4."""

import bisect
import threading
from collections import defaultdict
from collections.abc import Callable

MEDIA_TYPE = "text/plain; version=0.0.4"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_IMAGES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)


class _Histogram:
    def __init__(self, bounds: tuple[float, ...]):
        self.bounds, self.counts, self.sum = bounds, [0] * (len(bounds) + 1), 0.0

    def add(self, value: float) -> None:
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.sum += value

    def lines(self, name: str) -> list[str]:
        total, lines = 0, []
        for bound, count in zip((*self.bounds, "+Inf"), self.counts, strict=True):
            total += count
            lines.append(f'{name}_bucket{{le="{bound}"}} {total}')
        return [*lines, f"{name}_sum {self.sum:.6g}", f"{name}_count {total}"]


class Metrics:
    """Counts what a server does. No label holds anything that a client chose.

    Attributes:
      gauges: by name, what is read when the figures are asked for.
    """

    def __init__(self) -> None:
        """Begins at zero."""
        self._lock = threading.Lock()
        self._responses: defaultdict[int, int] = defaultdict(int)
        self._seconds = _Histogram(_SECONDS)
        self._batches = _Histogram(_IMAGES)
        self._padding = 0
        self.gauges: dict[str, Callable[[], float]] = {}

    def responded(self, status: int, seconds: float) -> None:
        """Counts an answered request."""
        with self._lock:
            self._responses[status] += 1
            self._seconds.add(seconds)

    def computed(self, images: int, padding: int) -> None:
        """Counts a batch, and the empty images that filled it up."""
        with self._lock:
            self._batches.add(images)
            self._padding += padding

    def text(self) -> str:
        """Writes all figures."""
        with self._lock:
            lines = ["# TYPE gxdistill_responses_total counter"]
            for status, count in sorted(self._responses.items()):
                lines.append(f'gxdistill_responses_total{{status="{status}"}} {count}')
            lines.append("# TYPE gxdistill_response_seconds histogram")
            lines += self._seconds.lines("gxdistill_response_seconds")
            lines.append("# TYPE gxdistill_batch_images histogram")
            lines += self._batches.lines("gxdistill_batch_images")
            lines.append("# TYPE gxdistill_padding_images_total counter")
            lines.append(f"gxdistill_padding_images_total {self._padding}")
        for name, read in self.gauges.items():
            lines += [f"# TYPE gxdistill_{name} gauge", f"gxdistill_{name} {read():g}"]
        return "\n".join(lines) + "\n"
