"""How many requests a token may make, and how many there may be in all."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator

from gxdistill.service.protocol import Limits, RefusedError


@dataclasses.dataclass
class _Account:
    allowance: float  # Requests that may come at once.
    at: float
    active: int = 0


class Admission:
    """Admits requests by a token bucket a token, and by counts of those that are being served."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic):
        """Begins with a full bucket for every token.

        Args:
          limits: rate and counts.
          clock: gives seconds.
        """
        self._limits, self._clock = limits, clock
        self._accounts: dict[str, _Account] = {}
        self.active = 0

    @contextlib.contextmanager
    def admitted(self, token: str) -> Iterator[None]:
        """Keeps the place of a request while the block runs.

        Args:
          token: id of a valid token, so that there are never more accounts than tokens.

        Raises:
          RefusedError: 429, the token has asked too often or too much at a time; 503, all
            places are taken.
        """
        limits, now = self._limits, self._clock()
        rate = limits.requests_a_minute / 60
        most = max(1.0, limits.requests_a_minute)
        account = self._accounts.setdefault(token, _Account(most, now))
        account.allowance = min(most, account.allowance + rate * (now - account.at))
        account.at = now
        if account.active >= limits.concurrent:
            raise RefusedError(
                429,
                "concurrency",
                f"This token has {account.active} requests under way, the most it may. Wait for "
                f"their answers.",
                retry_after=1,
            )
        if account.allowance < 1:
            raise RefusedError(
                429,
                "rate",
                f"This token may ask {limits.requests_a_minute:g} times a minute. Ask later.",
                retry_after=(1 - account.allowance) / rate,
            )
        if self.active >= limits.concurrent_in_all:
            raise RefusedError(503, "busy", "The server is busy. Ask later.", retry_after=1)
        account.allowance -= 1
        account.active += 1
        self.active += 1
        try:
            yield
        finally:
            account.active -= 1
            self.active -= 1
