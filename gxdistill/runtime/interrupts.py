"""Signals that end a process: as exceptions, and held back while a step is in flight."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SOON = 0.05  # Seconds, after which what was being freed is free.
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
def never_lost() -> Iterator[None]:
    """Has an interrupt that no caller can see come once more.

    One that is raised while Python frees an object or JAX looks after the collector's work is
    printed and ignored there, and the program would go on as if nothing had been asked of it.
    """
    former = sys.unraisablehook

    def hook(lost: "sys.UnraisableHookArgs") -> None:
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            former(lost)
            return
        number = signal.SIGTERM if issubclass(lost.exc_type, Terminated) else signal.SIGINT
        again = threading.Timer(_SOON, os.kill, (os.getpid(), number))
        again.daemon = True
        again.start()

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = former


@contextlib.contextmanager
def held_back() -> Iterator[Callable[[], None]]:
    """Only notes the first SIGINT or SIGTERM, so that a step ends whole; a second one raises.

    One that nobody asked for before the end is raised there: none is lost.

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
    check()


@contextlib.contextmanager
def at_once() -> Iterator[Callable[[], None]]:
    """Lets signals raise when they come; yields what raises nothing."""
    yield lambda: None
