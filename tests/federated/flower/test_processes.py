"""Servers and sites as people start them: processes on loopback under TLS, some of them killed."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from gxdistill.cli import main
from gxdistill.federated import aggregation, rounds
from gxdistill.package.segmenter import load_segmenter
from gxdistill.storage import checkpoint
from gxdistill.tasks.federation import agreement, keys, simulating
from tests.commands import refusal
from tests.federated.flower import flowering
from tests.tasks.federation import hospital_folders, small_federations
from tests.tasks.federation.hospital_folders import NAMES

ROOT = small_federations.__file__.rpartition("/tests/")[0]
PATIENCE_S = 240  # For a program to be compiled on a busy machine.


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with two hospitals, certificates and keys."""
    hospital_folders.write(tmp_path / "data")
    flowering.make_files(tmp_path / "certificates", NAMES)
    (tmp_path / "sites").mkdir()
    for name in NAMES:
        shutil.copy(tmp_path / f"certificates/{name}.pub", tmp_path / "sites")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _flags(place, manifest, **changes):
    settings = hospital_folders.settings_of(place / "data", manifest) | changes
    options = settings.pop("network__options")
    settings |= {f"network__options__{key}": value for key, value in options.items()}
    return [
        "--config=federation:smoke",
        *(f"--config.{name.replace('__', '.')}={value}" for name, value in settings.items()),
    ]


class Process:
    """A command in a process of its own, whose words are kept."""

    def __init__(self, place, log, *words):
        self.log = place / log
        with self.log.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gxdistill", *words],
                stdout=file,
                stderr=file,
                env=os.environ | {"PYTHONPATH": ROOT},
                cwd=place,
            )

    def wait_for(self, pattern):
        until = time.monotonic() + PATIENCE_S
        while not re.search(pattern, self.log.read_text()):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.1)

    def end(self):
        assert self.process.wait(PATIENCE_S) == 0, self.log.read_text()

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def start(place):
    """Starts a server or a site; whatever still runs at the end is killed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    started = []

    def run(who, *words, **changes):
        if who == "server":
            files = [f"--certificates={place}/certificates", f"--sites={place}/sites"]
            flags = [*_flags(place, "nowhere.csv", **changes), *files, f"--port={port}"]
            command = "server"
        else:
            flags = [
                *_flags(place, f"{who}.csv", **changes),
                *(f"--site={who}", f"--server=localhost:{port}"),
                f"--authority={place}/certificates/ca.pem",
                f"--key={place}/certificates/{who}.key",
            ]
            command = "client"
        words = [*flags, f"--workdir={place}/runs", *words]
        started.append(Process(place, f"{who}.log", "federate", command, *words))
        return started[-1]

    yield run
    for process in started:
        process.kill()


def _weights(place, folder, like):
    server = aggregation.server_optimizer("sgd", 1.0)
    state = rounds.first_state(server, None, like, jax.random.key(0))
    _, state, _ = checkpoint.restore(place / folder, state)
    return jax.tree.leaves(state.learned)


@pytest.mark.slow
def test_three_rounds_with_a_server_killed_in_between_are_those_of_a_simulation(place, start):
    server = start("server", "--least=2")
    sites = [start(name) for name in NAMES]
    server.wait_for("federation: 1/3")
    while not (place / "runs/server/checkpoints/step_00000001").exists():
        time.sleep(0.1)
    server.kill()
    server = start("server", "--least=2")
    for process in (server, *sites):
        process.end()
    assert "federation: resuming at step 1" in server.log.read_text()
    for site in sites:
        assert "is lost" in site.log.read_text()
        assert site.log.read_text().count("connected to localhost") == 2

    settings = hospital_folders.settings_of(place / "data", "all.csv")
    simulated = small_federations.make(place / "simulated", **settings)
    simulating.simulate(simulated)
    like = agreement.network_of(simulated.config).init(jax.random.key(0))
    expected = _weights(place, "simulated/trainings/federated/checkpoints", like)
    learned = _weights(place, "runs/server/checkpoints", like)
    for leaf, simulated_leaf in zip(learned, expected, strict=True):
        np.testing.assert_allclose(leaf, simulated_leaf, atol=1e-6, rtol=0)
    for name in NAMES:
        segmenter = load_segmenter(place / f"runs/sites/{name}/segmenter.gxs")
        for leaf, sent in zip(learned, jax.tree.leaves(segmenter.params), strict=True):
            np.testing.assert_array_equal(leaf, sent)
    package = f"--package={place}/runs/sites/north/segmenter.gxs"
    main.main(["segment", "predict", package, f"{place}/data/north/0.png"])


@pytest.mark.slow
def test_a_site_that_is_killed_is_named_and_takes_part_again_when_it_is_back(place, start):
    rounds_count = {"federation__rounds": 6}
    server = start("server", "--timeout=60", "--wait=240", **rounds_count)
    north, south = start("north", **rounds_count), start("south", **rounds_count)
    server.wait_for("federation: 1/6")
    south.kill()
    server.wait_for("site south is left out: it (went away|did not answer within 60 s)")
    south = start("south", **rounds_count)
    for process in (server, north, south):
        process.end()
    text = (place / "runs/server/rounds.jsonl").read_text()
    joined = [json.loads(line)["joined"] for line in text.splitlines()]
    assert len(joined) == 6
    assert joined[0] == joined[-1] == [*NAMES]
    assert ["north"] in joined
    assert all("north" in names for names in joined)


def test_what_is_amiss_is_one_line(place):
    config = _flags(place, "north.csv")
    server = ["federate", "server", *config]
    client = ["federate", "client", *config]
    assert "--certificates is missing" in refusal(*server)
    server.append(f"--certificates={place}/certificates")
    assert "--sites is missing" in refusal(*server)
    assert "holds no key of a site" in refusal(*server, f"--sites={place}/data")
    (place / "empty").mkdir()
    line = refusal(*server[:-1], f"--certificates={place}/empty", f"--sites={place}/sites")
    assert "empty/server.pem and" in line
    assert "cannot be used as certificate" in line
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = f"--port={listener.getsockname()[1]}"
        assert "Choose another --host or --port" in refusal(*server, f"--sites={place}/sites", port)
    for flag in ("site=north", "server=localhost:1", "authority=ca.pem"):
        assert f"--{flag.partition('=')[0]} is missing" in refusal(*client)
        client.append(f"--{flag}")
    assert "--key is missing" in refusal(*client)
    assert "cannot be used as a private key" in refusal(*client, "--key=none.key")
    key = f"--key={place}/certificates/north.key"
    assert "ca.pem cannot be used as the authority" in refusal(*client, key)
    assert "is there already" in refusal(
        "federate", "key", "--site=north", f"--out={place}/certificates"
    )
    assert keys.read_registered(place / "sites").keys() == {*NAMES}
