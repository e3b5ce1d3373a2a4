"""Answers by the identity of their request, so that a client may ask again and be served once."""

import asyncio
import collections
import dataclasses
import time
from collections.abc import Awaitable, Callable

from gxdistill.service.protocol import Limits, RefusedError

Key = tuple[str, str]  # Of a token, the id of a request.


@dataclasses.dataclass
class _Entry:
    asked: bytes  # Digest of what was asked.
    answer: asyncio.Future[bytes]
    at: float


class Answers:
    """Remembers answers: for a while, and no more bytes than it may.

    The same request while it is still computed waits for the same answer.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic):
        """Begins empty.

        Args:
          limits: how much is remembered, and for how long.
          clock: gives seconds.
        """
        self._limits, self._clock = limits, clock
        self._entries: collections.OrderedDict[Key, _Entry] = collections.OrderedDict()
        self.bytes = 0

    async def get(self, key: Key, asked: bytes, make: Callable[[], Awaitable[bytes]]) -> bytes:
        """Returns the answer of a request, made at most once.

        Args:
          key: of the request.
          asked: digest of all that its answer depends on.
          make: computes the answer.

        Raises:
          RefusedError: 409, the same identity was given to another request.
        """
        self._forget()
        entry = self._entries.get(key)
        if entry is not None:
            if entry.asked != asked:
                raise RefusedError(
                    409, "request-id", "Another request has this identity. Give each its own."
                )
            return await asyncio.shield(entry.answer)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(_heard)
        entry = self._entries[key] = _Entry(asked, answer, self._clock())
        try:
            content = await make()
        except BaseException as error:
            # What failed may be asked again; who waits for it here fails alike.
            del self._entries[key]
            answer.set_exception(
                error if isinstance(error, Exception) else RefusedError(503, "stopped", "Ask again")
            )
            raise
        answer.set_result(content)
        self.bytes += len(content)
        self._forget()
        return content

    def _forget(self) -> None:
        oldest = self._clock() - self._limits.remembered_s
        gone = []
        for key, entry in self._entries.items():  # The oldest first: few are looked at.
            if not entry.answer.done():
                continue
            if entry.at > oldest and self.bytes <= self._limits.remembered_bytes:
                break
            self.bytes -= len(entry.answer.result())
            gone.append(key)
        for key in gone:
            del self._entries[key]


def _heard(answer: asyncio.Future[bytes]) -> None:
    """Takes note of a failure that nobody else waits for."""
    if not answer.cancelled():
        answer.exception()
