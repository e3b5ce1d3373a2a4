"""How many slices a server segments, with batches and without, and how long clients wait.

  python -m benchmarks.serving                       # batches against none, in turn
  python -m benchmarks.serving --requests=10000      # and whether memory stays flat

Two servers of the same untrained U-Net run side by side, one of which computes each request by
itself. Each round, 16 clients ask the one and then the other for one slice at a time, over TLS.
`batching_gain` is of requests a second, which other work on the machine disturbs; `cpu_gain` is of
the servers' processor seconds, and `network_gain` of the network's alone, the most to be had.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from benchmarks.record import ROOT, Measured, Recorder
from gxdistill.package import mixup_file
from gxdistill.package.mixup_file import SERVER, MixupFile, MixupManifest, network_of
from gxdistill.service import certificates, protocol, tokens
from gxdistill.service.client import Client
from gxdistill.service.model import CompiledModel
from gxdistill.tasks.mixup import sides

CASE = "serving"
_OPEN = ("--port=0", "--rate=100000000", "--concurrent=64")
_BATCH, _REPEATS = 16, 20
SHAPE, CLASSES = (60, 48, 1), ("background", "anterior", "posterior")


class Server(NamedTuple):
    """A server that runs.

    Attributes:
      url: where.
      pid: of its process.
      folder: of its files.
      token: that it takes.
      digest: of its model.
    """

    url: str
    pid: int
    folder: Path
    token: str
    digest: str

    def client(self) -> Client:
        """Makes a client of it."""
        return Client(self.url, self.token, digest=self.digest, authority=self.folder / "ca.pem")

    def figures(self) -> dict[str, float]:
        """Reads its metrics."""
        with self.client() as client:
            text = client.text(protocol.METRICS)
        rows = (line.rsplit(" ", 1) for line in text.splitlines() if line[:1] not in ("#", ""))
        return {name.removeprefix("gxdistill_"): float(value) for name, value in rows}

    def resident(self) -> int:
        """Returns the bytes of memory that its process holds."""
        status = Path(f"/proc/{self.pid}/status").read_text("ascii")
        return 1024 * int(status.split("VmRSS:")[1].split()[0])

    def cpu_s(self) -> float:
        """Returns the processor seconds that its process has taken."""
        fields = Path(f"/proc/{self.pid}/stat").read_text("ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def prepare(folder: Path, width: int) -> tuple[str, str]:
    """Writes all that a server reads; returns a token and the digest of its model."""
    certificates.make(folder, ("localhost", "127.0.0.1"))
    manifest = MixupManifest(
        kind=SERVER,
        name=CASE,
        privacy="Untrained.",
        network="unet",
        options={"width": width, "depth": 3},
        shape=SHAPE,
        class_names=CLASSES,
    )
    params = network_of(manifest).init(jax.random.key(0))
    digest = mixup_file.save(folder / "server.gxm", MixupFile(manifest, params))
    return tokens.make(folder / "tokens.json", CASE), digest


@contextlib.contextmanager
def serving(folder: Path, token: str, digest: str, *flags: str) -> Iterator[Server]:
    """Runs a server in a process of its own."""
    files = {
        "package": "server.gxm",
        "certificate": "server.pem",
        "private-key": "server.key",
        "tokens": "tokens.json",
        "journal": f"journal{len(flags)}.db",
    }
    words = [f"--{name}={folder / file}" for name, file in files.items()]
    command = [sys.executable, "-m", "gxdistill", "mixup", "serve", *words, *_OPEN, *flags]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=environment, cwd=folder
    )
    assert process.stderr
    for line in process.stderr:
        if '"ready"' in line:
            break
    url = json.loads(line)["url"].replace("127.0.0.1", "localhost")
    drain = threading.Thread(target=process.stderr.read)  # Its log must not fill the pipe.
    drain.start()
    try:
        yield Server(url, process.pid, folder, token, digest)
    finally:
        process.terminate()
        process.wait()
        drain.join()
        process.stderr.close()


def load(server: Server, clients: int, requests: int) -> tuple[float, list[float]]:
    """Has clients ask at once; returns the seconds of all, and those of each request."""
    slices = np.random.default_rng(0).random((1, *SHAPE), np.float32)
    barrier, waits = threading.Barrier(clients + 1), []

    def work() -> None:
        with server.client() as client:
            client.served()
            barrier.wait()
            for _ in range(requests // clients):
                began = time.perf_counter()
                client.segment(slices, len(CLASSES))
                waits.append(time.perf_counter() - began)

    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    barrier.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began, waits


def network_gain(folder: Path) -> float:
    """Returns processor seconds of the network for a slice by itself over those within a batch.

    What a server can gain by batches where the network is all that takes time.
    """
    model = CompiledModel(sides.load_server(folder / "server.gxm"), (1, _BATCH))

    def cost(count: int) -> float:
        slices = np.random.default_rng(0).random((count, *SHAPE), np.float32)
        seconds = []
        for _ in range(_REPEATS):
            began = time.process_time()
            model.run(slices)
            seconds.append((time.process_time() - began) / count)
        return min(seconds)  # Threads that wait spin, the more the busier the machine.

    return cost(1) / cost(_BATCH)


def _spread(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None


def measure(given: argparse.Namespace, batched: Server, alone: Server) -> list[Measured]:
    """Loads both servers in turn."""
    gains, waits, rates, cpu = [], [], [], []
    for server in (batched, alone):
        load(server, given.clients, 10 * given.clients)
    for _ in range(given.rounds):
        began = batched.cpu_s(), alone.cpu_s()
        seconds, some = load(batched, given.clients, given.requests // given.rounds)
        single, others = load(alone, given.clients, len(some))
        cpu.append((alone.cpu_s() - began[1]) / (batched.cpu_s() - began[0]))
        rates.append(len(some) / seconds)
        gains.append(len(some) / seconds / (len(others) / single))
        waits += some
    percentiles = statistics.quantiles(waits, n=100)
    figures = batched.figures()
    return [
        Measured("batching_gain", statistics.median(gains), _spread(gains), len(gains)),
        Measured("cpu_gain", statistics.median(cpu), _spread(cpu), len(cpu)),
        Measured("network_gain", network_gain(batched.folder)),
        Measured("requests_a_second", statistics.median(rates), None, len(rates), "1/s"),
        Measured("median_ms", 1000 * statistics.median(waits), None, len(waits), "ms"),
        Measured("p99_ms", 1000 * percentiles[98], None, len(waits), "ms"),
        Measured("compilations", figures["compilations_under_load"]),
        Measured("images_a_batch", figures["batch_images_sum"] / figures["batch_images_count"]),
    ]


def memory_growth(server: Server, clients: int, requests: int) -> Measured:
    """Loads a server further; returns by what share its memory grew after the first half."""
    load(server, clients, requests // 2)
    before = server.resident()
    load(server, clients, requests // 2)
    return Measured("memory_growth", server.resident() / before - 1, None, requests)


def main() -> None:
    """Measures, prints, and with --record records."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, count in (("clients", 16), ("requests", 1600), ("rounds", 5), ("width", 16)):
        parser.add_argument(f"--{name}", type=int, default=count)
    Recorder.add_flags(parser)
    given = parser.parse_args()
    recorder = Recorder("serving", given)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        token, digest = prepare(folder, given.width)
        with (
            serving(folder, token, digest) as batched,
            serving(folder, token, digest, "--alone") as alone,
        ):
            rows = measure(given, batched, alone)
            rows.append(memory_growth(batched, given.clients, given.requests))
    for row in rows:
        print(json.dumps({"case": CASE, **row._asdict()}))
    recorder.add(CASE, *rows)


if __name__ == "__main__":
    main()
