"""Decodes compressed DICOM pixels in processes apart.

The decoders are C and C++: of thousands of damaged files one makes them crash, hang or ask for all
memory, and then only the process apart is lost. Nor do they write into our standard error, where
they quote what they read.
"""

import atexit
import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np

from gxdistill.data.files.grey import BadEntryError

_SECONDS = 4.0  # A damaged file may make a decoder run for minutes.
_SECONDS_PER_PIXEL = 4e-6  # Ten times what JPEG 2000 takes, the slowest.
_PROGRAM = Path(__file__).with_name("decoding_process.py")

_idle: queue.SimpleQueue["_Decoder"] = queue.SimpleQueue()


class _Decoder:
    """A process that decodes one file after another."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", str(_PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        )
        assert self._process.stdout
        self._process.stdout.readline()

    def decode(self, path: Path, seconds: float) -> np.ndarray | None:
        """Returns the stored values; None where they cannot be decoded.

        Raises:
          OSError, ValueError: the process was lost or stopped; it is of no more use.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin
        assert stdout
        watch = threading.Timer(seconds, self._process.kill)
        watch.start()
        try:
            stdin.write(json.dumps(str(path.absolute())).encode() + b"\n")
            stdin.flush()
            answer = json.loads(stdout.readline())
            if answer is None:
                return None
            content = stdout.read(answer["bytes"])
            return np.frombuffer(content, answer["dtype"]).reshape(answer["shape"])
        finally:
            watch.cancel()

    def end(self) -> None:
        """Ends the process and frees its pipes."""
        self._process.kill()
        with contextlib.suppress(OSError):  # What could not be sent any more.
            self._process.communicate()


def decode(path: Path, pixels: int) -> np.ndarray:
    """Decodes the stored values of a compressed DICOM file; safe to call from several threads.

    Args:
      path: of the file.
      pixels: that its header claims; they set the time that is waited.

    Returns:
      Stored values, `[H, W]` integer, read-only.

    Raises:
      BadEntryError: the file cannot be decoded, or not in time or memory.
    """
    try:
        decoder = _idle.get_nowait()
    except queue.Empty:
        decoder = _Decoder()
    try:
        values = decoder.decode(path, _SECONDS + _SECONDS_PER_PIXEL * pixels)
    except (OSError, ValueError) as error:
        decoder.end()
        raise BadEntryError("DICOM pixels damaged: their decoder crashed or took long") from error
    except BaseException:
        decoder.end()
        raise
    _idle.put(decoder)
    if values is None:
        raise BadEntryError(
            "DICOM pixels damaged, truncated or compressed in a way that no installed decoder reads"
        )
    return values


@atexit.register
def _end_all() -> None:
    with contextlib.suppress(queue.Empty):
        while True:
            _idle.get_nowait().end()
