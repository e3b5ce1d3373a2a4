"""Servers as tests start them: in a process of their own, with certificates of a day."""

import contextlib
import dataclasses
import json
import os
import queue
import signal
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np

from gxdistill.service import certificates, tokens

ROOT = Path(__file__).parents[2]
HOSTS = ("localhost", "127.0.0.1")


@dataclasses.dataclass
class Running:
    """A server that runs.

    Attributes:
      process: its process.
      url: where it listens.
      token: that it accepts.
      folder: of its files.
      lines: what it has logged, decoded.
    """

    process: subprocess.Popen
    url: str
    token: str
    folder: Path
    lines: queue.SimpleQueue
    seen: list

    @property
    def port(self):
        return int(self.url.rpartition(":")[2])

    def tls(self):
        context = ssl.create_default_context(cafile=self.folder / "ca.pem")
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        return context.wrap_socket(plain, server_hostname="localhost")

    def wait_for(self, event, seconds=60):
        while True:
            line = self.lines.get(timeout=seconds)
            self.seen.append(line)
            if line.get("event") == event:
                return line

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.process.wait(60)

    def resident(self):
        """Bytes of memory that the process has."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(status.split("VmRSS:")[1].split()[0])


def prepare(folder, seed=1):
    """Writes what a server reads, and returns a token."""
    folder.mkdir(parents=True, exist_ok=True)
    certificates.make(folder, HOSTS)
    folder.joinpath("model").write_text(str(seed))
    return tokens.make(folder / "tokens.json", "a hospital")


def start(folder, token, **values):
    """Starts a server and waits until it is ready."""
    words = [f"{name}={value}" for name, value in values.items()]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.service.tiny_server", folder, *words],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
    )
    lines = queue.SimpleQueue()

    def read():
        with process.stderr:
            for line in process.stderr:
                try:
                    lines.put(json.loads(line))
                except ValueError:
                    lines.put({"event": "text", "text": line})

    threading.Thread(target=read, daemon=True).start()
    running = Running(process, "", token, folder, lines, [])
    running.url = running.wait_for("ready")["url"].replace("127.0.0.1", "localhost")
    return running


@contextlib.contextmanager
def serving(folder, **values):
    running = start(folder, prepare(folder), **values)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()
            running.process.wait()


def slices(count, seed=0):
    return np.random.default_rng(seed).random((count, 16, 12, 1), np.float32)


def expected(images, kernel):
    """What the tiny network gives, by loops of SciPy."""
    from scipy.ndimage import correlate
    from scipy.special import softmax

    maps = [
        [correlate(image[..., 0], kernel[:, :, 0, k], mode="constant") for k in range(3)]
        for image in images
    ]
    return softmax(np.moveaxis(np.array(maps), 1, -1), axis=-1)
