import signal
import sys
import time

import pytest

from gxdistill.runtime import interrupts


@pytest.mark.parametrize(
    ("number", "error"),
    [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, interrupts.Terminated)],
)
def test_an_interrupt_while_an_object_is_freed_is_not_lost(number, error):
    freed = []

    class Trap:
        def __del__(self):
            freed.append(True)
            signal.raise_signal(number)
            time.sleep(0)  # Where Python looks for signals.

    def free_and_wait():
        trap = Trap()
        del trap
        time.sleep(20)

    deaf, hook = signal.signal(signal.SIGINT, signal.default_int_handler), sys.unraisablehook
    try:
        with pytest.raises(error) as caught, interrupts.sigterm_raises(), interrupts.never_lost():
            free_and_wait()
    finally:
        signal.signal(signal.SIGINT, deaf)
    assert type(caught.value) is error
    assert freed == [True]
    assert sys.unraisablehook is hook


def test_other_errors_while_an_object_is_freed_are_told_as_ever(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: told.append(lost.exc_type))

    class Trap:
        def __del__(self):
            raise LookupError

    with interrupts.never_lost():
        trap = Trap()
        del trap
    assert told == [LookupError]


@pytest.mark.parametrize(
    ("number", "error"),
    [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, interrupts.Terminated)],
)
def test_a_signal_that_comes_in_the_last_step_is_not_lost(number, error):
    done = []

    def step():
        with interrupts.held_back():
            signal.raise_signal(number)
            done.append(True)

    with pytest.raises(error):
        step()
    assert done == [True]
