"""Signals that end a process: as exceptions, and held back while a step is in flight."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_Handler = Callable[[int, FrameType | None], None]


class Terminated(KeyboardInterrupt):
    """SIGTERM, as a scheduler sends it before it takes the machine away."""


def error_of(number: int) -> KeyboardInterrupt:
    """Makes the exception that stands for a signal."""
    return Terminated() if number == signal.SIGTERM else KeyboardInterrupt()


@contextlib.contextmanager
def _handling(numbers: tuple[int, ...], handler: _Handler) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # Python lets only the main thread handle signals.
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


def sigterm_raises() -> contextlib.AbstractContextManager[None]:
    """Has SIGTERM raise `Terminated`, as SIGINT raises KeyboardInterrupt."""

    def handler(number: int, _: FrameType | None) -> None:
        raise error_of(number)

    return _handling((signal.SIGTERM,), handler)


@contextlib.contextmanager
def held_back() -> Iterator[Callable[[], None]]:
    """Only notes the first SIGINT or SIGTERM, so that a step ends whole; a second one raises.

    Yields:
      What raises the exception of a signal that was noted.
    """
    noted: list[int] = []

    def handler(number: int, _: FrameType | None) -> None:
        if noted:
            raise error_of(number)
        noted.append(number)

    def check() -> None:
        if noted:
            raise error_of(noted[0])

    with _handling(_SIGNALS, handler):
        yield check


@contextlib.contextmanager
def at_once() -> Iterator[Callable[[], None]]:
    """Lets signals raise when they come; yields what raises nothing."""
    yield lambda: None
