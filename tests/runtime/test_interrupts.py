# ruff: noqa: PT012  (it is the end of such a block that raises)
import contextlib
import importlib
import signal
import subprocess
import sys
import time

import pytest

from gxdistill.runtime import interrupts
from gxdistill.runtime.console import Progress

SIGNALS = pytest.mark.parametrize(
    ("number", "error"),
    [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, interrupts.Terminated)],
)


@SIGNALS
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

    hook = sys.unraisablehook
    with pytest.raises(error) as caught, interrupts.heard():
        free_and_wait()
    assert type(caught.value) is error
    assert freed == [True]
    assert sys.unraisablehook is hook


def test_other_errors_while_an_object_is_freed_are_told_as_ever(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "__unraisablehook__", lambda lost: told.append(lost.exc_type))

    class Trap:
        def __del__(self):
            raise LookupError

    with interrupts.heard():
        trap = Trap()
        del trap
    assert told == [LookupError]


@SIGNALS
def test_a_signal_that_comes_in_the_last_step_is_not_lost(number, error):
    done = []

    def step():
        with interrupts.held_back():
            signal.raise_signal(number)
            done.append(True)

    with pytest.raises(error):
        step()
    assert done == [True]


@SIGNALS
def test_an_interrupt_that_a_library_swallows_comes_again(number, error):
    done = []
    with pytest.raises(error) as caught, interrupts.heard():
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(number)
        done.append("behind")
        with pytest.raises(error):
            Progress(print, "working")(1, 2)
        done.append("end")
    assert done == ["behind", "end"]
    assert type(caught.value) is error


@SIGNALS
def test_an_error_that_an_interrupt_became_is_an_interrupt(number, error):
    with pytest.raises(error) as caught, interrupts.heard():
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:
            raise RuntimeError("INTERNAL: callback failed") from None
    assert type(caught.value) is error


def test_an_import_is_not_torn_apart(tmp_path, monkeypatch):
    (tmp_path / "module_in_two_parts.py").write_text(
        "import signal, time\nsignal.raise_signal(signal.SIGTERM)\ntime.sleep(0.2)\nwhole = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(interrupts.Terminated), interrupts.heard():
        importlib.import_module("module_in_two_parts")
        time.sleep(20)
    assert sys.modules.pop("module_in_two_parts").whole


def test_what_is_saved_while_an_interrupt_is_answered_is_saved_whole():
    saved = []
    with pytest.raises(KeyboardInterrupt), interrupts.held_back():
        signal.raise_signal(signal.SIGINT)
        try:
            interrupts.check()
        except KeyboardInterrupt:
            with interrupts.held_back():
                saved.append("arrays")
            saved.append("record")
            raise
    assert saved == ["arrays", "record"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_native_code_does_not_keep_a_program_from_ending(number):
    code = """
import ctypes, os, signal, sys, threading
from gxdistill.runtime import interrupts

def leave(number):
    print("left", flush=True)
    os._exit(128 + number)

threading.Timer(0.2, os.kill, (os.getpid(), int(sys.argv[1]))).start()
with interrupts.heard(leave):
    # Another thread takes the signal, which would cut this sleep short.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    ctypes.CDLL(None).sleep(30)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(int(number))], capture_output=True, text=True, timeout=25
    )
    assert (done.returncode, done.stdout) == (128 + number, "left\n"), done.stderr
