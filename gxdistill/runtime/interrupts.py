"""SIGINT and SIGTERM: asked once, heard for certain.

An exception that a signal handler raises may be lost: Python drops it where an object is freed, a
library may catch it, and native code sees it only when it returns. So what was asked is kept, and
is raised again wherever `check` is called; a thread watches whether it is heard at all.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

from gxdistill.errors import UserError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SOON = 0.05  # Seconds, after which what was being freed is free.
_TWICE = 1.0  # Seconds: `timeout` and some shells send one signal twice.
_GRACE = 2.0  # Seconds after which who has not heard a signal is in native code.

WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
Leave = Callable[[int], NoReturn]  # Ends the process for a signal's number, with a word.


class Terminated(KeyboardInterrupt):
    """SIGTERM, as a scheduler sends it before it takes the machine away."""


def error_of(number: int) -> KeyboardInterrupt:
    """Makes the exception that stands for a signal."""
    return Terminated() if number == signal.SIGTERM else KeyboardInterrupt()


def number_of(error: KeyboardInterrupt) -> signal.Signals:
    """Tells the signal that an exception stands for."""
    return signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT


class _State:
    """What was asked of the process; of its main thread alone, as signal handlers are."""

    def __init__(self) -> None:
        self.contexts = 0  # That handle signals, one within the other.
        self.holds = 0
        self.leave: Leave | None = None
        self.forget()

    def forget(self) -> None:
        self.asked: int | None = None  # The first signal.
        self.asked_at = 0.0
        self.is_raised = False  # At least once, though perhaps nobody saw it.
        self.repeats = 0  # That are sent and not yet here.
        self.repeats_sent = 0


_state = _State()


def check() -> None:
    """Raises the exception of a signal that was asked for, however often it was raised before."""
    if _state.asked is not None and threading.current_thread() is threading.main_thread():
        _state.is_raised = True
        raise error_of(_state.asked)


def check_unless_held() -> None:
    """Raises as `check` does, but not within `held_back`."""
    if not _state.holds:
        check()


def _again_soon(number: int) -> None:
    def send() -> None:
        _state.repeats += 1
        _state.repeats_sent += 1
        os.kill(os.getpid(), number)

    timer = threading.Timer(_SOON, send)
    timer.daemon = True
    timer.start()


def _is_import(frame: FrameType | None) -> bool:
    """Whether a module is being imported: an exception in the midst of it may abort Python."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _handle(number: int, frame: FrameType | None) -> None:
    now = time.monotonic()
    is_repeat = _state.repeats > 0
    _state.repeats -= is_repeat
    is_first = _state.asked is None
    if is_first:
        _state.asked, _state.asked_at = number, now
    if _state.holds:
        if is_first or is_repeat or now - _state.asked_at < _TWICE:
            return
        if _state.leave:
            _state.leave(number)
    if _is_import(frame):
        _again_soon(number)
        return
    _state.is_raised = True
    raise error_of(number)


def _on_unraisable(lost: "sys.UnraisableHookArgs") -> None:
    """Has an interrupt that no caller can see come once more."""
    if isinstance(lost.exc_value, KeyboardInterrupt):
        _again_soon(number_of(lost.exc_value))
    else:
        sys.__unraisablehook__(lost)


@contextlib.contextmanager
def _handling() -> Iterator[None]:
    before = {number: signal.signal(number, _handle) for number in _SIGNALS}
    _state.contexts += 1
    try:
        yield
    finally:
        _state.contexts -= 1
        for number, former in before.items():
            signal.signal(number, former)
        if not _state.contexts:
            _state.forget()


@contextlib.contextmanager
def heard(leave: Leave | None = None) -> Iterator[None]:
    """Has SIGINT and SIGTERM end a command for certain, at the latest where the block ends.

    Args:
      leave: ends the process, which is then the command's own. It is called from another thread
        where a signal comes while native code is at work for long, as a compiler is, or is sent
        once more because the first was not answered. After the block both signals are ignored.

    Raises:
      KeyboardInterrupt: on SIGINT, and as `Terminated` on SIGTERM; also in place of an error of
        the block that came after it, unless that is a `UserError`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python lets only the main thread handle signals.
        return
    try:
        with _handling(), _watched(leave):
            try:
                yield
            except Exception as error:
                if _state.asked is None or isinstance(error, UserError):
                    raise
                raise error_of(_state.asked) from error
            check()
    finally:
        if leave:
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Only notes the first SIGINT or SIGTERM, so that what is being done is done whole.

    It raises at the end of the outermost such block, or where `check` is called. A second signal,
    a second later, ends the process where `heard` was told how, and raises otherwise.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with _handling():
        _state.holds += 1
        try:
            yield
        finally:
            _state.holds -= 1
        if not _state.holds and not _state.is_raised:
            check()


@contextlib.contextmanager
def _watched(leave: Leave | None) -> Iterator[None]:
    former_hook, sys.unraisablehook = sys.unraisablehook, _on_unraisable
    if leave is None:
        try:
            yield
        finally:
            sys.unraisablehook = former_hook
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    former = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    _state.leave = leave
    threading.Thread(target=_watch, args=(reader, leave), daemon=True).start()
    try:
        yield
    finally:
        sys.unraisablehook = former_hook
        signal.set_wakeup_fd(former)
        _state.leave = None
        os.close(writer)  # Ends the thread.


def _watch(reader: int, leave: Leave) -> None:
    """Leaves where the main thread does not, since no handler runs while native code is at work."""
    received, first_at = 0, 0.0
    while content := os.read(reader, 1):
        number, now = content[0], time.monotonic()
        if number not in _SIGNALS:
            continue
        received += 1
        first_at = first_at or now
        time.sleep(_GRACE)
        is_second = received - _state.repeats_sent > 1 and now - first_at >= _TWICE
        if is_second or (_state.asked is None and not _state.holds):
            leave(number)
    os.close(reader)
