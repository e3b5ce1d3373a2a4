"""Arrays between a server and its sites over loopback, under TLS, and who is not let in."""

import contextlib
import http.server
import os
import ssl
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import httpx
import numpy as np
import pytest

from gxdistill.errors import UserError
from gxdistill.federated.exchange import Packet, RefusedError
from gxdistill.federated.flower import superlink, supernode
from gxdistill.service import certificates
from tests.federated.flower import flowering

NAMES = ("north", "south")
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return flowering.make_files(tmp_path_factory.mktemp("files"), (*NAMES, "stranger"))


@pytest.fixture(scope="module")
def link(files, tmp_path_factory):
    certificate, pairs = files
    keys = flowering.registered(pairs, NAMES)
    with pytest.MonkeyPatch.context() as patched:
        # Of a proxy that nobody runs, and that would see what the server tells itself.
        patched.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        patched.setenv("no_proxy", "")
        patched.setenv("FLWR_DATABASE", str(tmp_path_factory.mktemp("none") / "state.db"))
        with superlink.superlink(flowering.endpoint(certificate), keys) as link:
            yield link


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Looks more often than every three seconds, as Flower and sites do."""
    often = types.SimpleNamespace(sleep=lambda _: time.sleep(0.1), time=time.time)
    monkeypatch.setattr("flwr.superlink.grid.http_grid.time", often)
    monkeypatch.setattr(supernode, "_LOOK_S", 0.1)
    monkeypatch.setattr(supernode, "_LINGER_S", 0.5)


def _wait(condition, seconds=20):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


def _packet(number, size=1000):
    arrays = [np.full((size, 3), number, np.float32), np.arange(4, dtype=np.float32)]
    return Packet(arrays, {"kind": "round", "round": number})


def test_sites_answer_in_rounds_fail_by_name_and_are_dismissed(link, files):
    certificate, pairs = files
    said = []

    def respond(packet):
        if packet.fields.get("round") == 2:
            raise FileNotFoundError("/data/patient_7/image.png")
        return flowering.echo(packet)

    with contextlib.ExitStack() as stack:
        stack.enter_context(flowering.site(link, certificate, pairs["north"]))
        stack.enter_context(flowering.site(link, certificate, pairs["south"], respond, said.append))
        _wait(lambda: link.present() == {*NAMES})
        # Larger than the pieces that Flower cuts arrays into.
        for number, size in ((1, 10), (2, 450_000)):
            packet = _packet(number, size)
            came = link.exchange(dict.fromkeys(NAMES, packet), 30)
            assert came["north"].fields == {"kind": "round", "round": number, "seen": 1}
            for array, sent in zip(came["north"].arrays, packet.arrays, strict=True):
                np.testing.assert_array_equal(array, sent)
        # Its own log has all of it, the server the class alone.
        assert came["south"] == Packet([], {"kind": "fault", "class": "FileNotFoundError"})
        assert any("/data/patient_7/image.png" in line for line in said)
        came = link.exchange(dict.fromkeys(NAMES, Packet((), {"kind": "end"})), 30)
        assert [came[name].fields for name in NAMES] == 2 * [{"kind": "end"}]


def test_a_slow_site_is_waited_for_no_longer_than_the_round_and_a_gone_one_not_at_all(link, files):
    certificate, pairs = files
    _wait(lambda: link.present() == frozenset())
    going = threading.Event()

    def slow(packet):
        going.wait(20)
        return flowering.echo(packet)

    with flowering.site(link, certificate, pairs["south"]):
        _wait(lambda: link.present() == {"south"})
        link.exchange({"south": Packet((), {"kind": "end"})}, 20)
    with flowering.site(link, certificate, pairs["north"], slow):
        _wait(lambda: link.present() == {"north"})
        start = time.monotonic()
        # "south" has said goodbye.
        came = link.exchange({"north": _packet(1), "south": _packet(1)}, 2)
        assert time.monotonic() - start < 5
        assert str(came.pop("south")) == "it went away"
        assert came == {}
        assert len(link.state.object_store) == 0  # Nothing is kept for who did not fetch it.
        going.set()
        # The late answer is for a round that is over; the next question is answered.
        came = link.exchange({"north": _packet(2)}, 20)
        assert came["north"].fields["round"] == 2
        link.exchange({"north": Packet((), {"kind": "end"})}, 20)


def test_what_flower_cannot_read_concerns_its_sender_alone(link, files, monkeypatch):
    certificate, pairs = files
    read = superlink.from_message

    def garbled(message):
        if message.metadata.src_node_id in link.nodes and _is_south(message):
            raise KeyError("Flower's reader stumbled")
        return read(message)

    def _is_south(message):
        return link.nodes[message.metadata.src_node_id] == "south"

    with contextlib.ExitStack() as stack:
        for name in NAMES:
            stack.enter_context(flowering.site(link, certificate, pairs[name]))
        _wait(lambda: link.present() == {*NAMES})
        with monkeypatch.context() as patched:
            patched.setattr(superlink, "from_message", garbled)
            came = link.exchange(dict.fromkeys(NAMES, _packet(1)), 20)
        assert isinstance(came["north"], Packet)
        assert isinstance(came["south"], RefusedError)
        link.exchange(dict.fromkeys(NAMES, Packet((), {"kind": "end"})), 20)


def test_a_site_that_was_killed_takes_its_place_again_at_once(link, files):
    certificate, pairs = files
    connection = flowering.connection(link, certificate, pairs["north"])
    # Which never says goodbye while the other one is there.
    with supernode._client(connection) as client, supernode._activated(connection, client):
        assert link.present() == {"north"}
        with flowering.site(link, certificate, pairs["north"]):
            came = link.exchange({"north": _packet(1)}, 20)
            assert came["north"].fields["seen"] == 1
            link.exchange({"north": Packet((), {"kind": "end"})}, 20)


def test_an_unregistered_key_is_refused(link, files):
    certificate, pairs = files
    stranger = flowering.connection(link, certificate, pairs["stranger"])
    with pytest.raises(UserError, match=r"does not let this site in \(status 4\d\d\).*stranger"):
        supernode.take_part(stranger, flowering.echo, print)


def test_a_server_of_another_authority_is_refused(link, files, tmp_path):
    _, pairs = files
    other = certificates.make(tmp_path, ["127.0.0.1"])
    wrong = flowering.connection(link, other, pairs["north"])
    with pytest.raises(UserError, match=r"has no certificate that .* vouches for: certificate"):
        supernode.take_part(wrong, flowering.echo, print)


def test_a_server_without_tls_is_refused(files):
    certificate, pairs = files
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as plain:
        threading.Thread(target=plain.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{plain.server_port}"
        wrong = supernode.Connection(address, certificate.authority, pairs["north"].private)
        with pytest.raises(UserError, match="does not speak TLS as it must"):
            supernode.take_part(wrong, flowering.echo, print)
        plain.shutdown()


def test_plain_http_gets_no_answer(link):
    with pytest.raises(httpx.TransportError):
        httpx.post(f"http://{link.address}/v1/fleet/activate-node")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/control/register-node",  # Whoever reached it could let themselves in.
        "/v1/control/start-run",
        "/v1/runtime/acquire-task",
        "/v1/runtime/get-nodes",
        "/v1/fleet/../control/register-node",
        "/v1//control/register-node",
        "/docs",
        "/openapi.json",
    ],
)
def test_of_the_superlink_only_what_sites_need_is_open(link, files, path):
    certificate, _ = files
    with httpx.Client(verify=_context(certificate)) as client:
        assert client.post(f"https://{link.address}{path}").status_code == 404


def test_a_body_that_is_too_large_is_not_read(link, files, monkeypatch):
    certificate, _ = files
    monkeypatch.setattr(superlink, "_MAX_BODY_BYTES", 1000)
    headers = {"content-type": "application/x-protobuf"}
    with httpx.Client(verify=_context(certificate)) as client:
        url = f"https://{link.address}/v1/fleet/activate-node"
        with contextlib.suppress(httpx.TransportError):
            assert client.post(url, content=bytes(100_000), headers=headers).status_code >= 400


def _context(certificate):
    return ssl.create_default_context(cafile=certificate.authority)


def test_a_port_that_is_taken_and_keys_that_are_none_are_named(link, files, tmp_path):
    certificate, pairs = files
    keys = flowering.registered(pairs, NAMES)
    port = int(link.address.rpartition(":")[2])
    with (
        pytest.raises(UserError, match=rf"127.0.0.1:{port} cannot be listened at: Address already"),
        superlink.superlink(flowering.endpoint(certificate, port), keys),
    ):
        pass
    absent = superlink.Endpoint("127.0.0.1", 0, tmp_path / "server.pem", certificate.key)
    with (
        pytest.raises(UserError, match=r"server.pem and .* cannot be used as certificate"),
        superlink.superlink(absent, keys),
    ):
        pass
    bad = {"north": b"-----BEGIN PUBLIC KEY-----\nnone\n-----END PUBLIC KEY-----\n"}
    with (
        pytest.raises(UserError, match="The key of site north is no public key"),
        superlink.superlink(flowering.endpoint(certificate), bad),
    ):
        pass
    same = dict.fromkeys(("north", "south"), keys["north"])
    with (
        pytest.raises(UserError, match="The key of site south is that of another site"),
        superlink.superlink(flowering.endpoint(certificate), same),
    ):
        pass


@pytest.mark.parametrize(
    ("field", "fault"),
    [
        ("authority", "cannot be used as the authority"),
        ("key", "cannot be used as a private key"),
    ],
)
@pytest.mark.parametrize("content", [None, b"none"])
def test_files_of_a_site_that_do_not_do_are_named(files, tmp_path, field, fault, content):
    certificate, pairs = files
    if content:
        (tmp_path / "file").write_bytes(content)
    right = supernode.Connection("localhost:1", certificate.authority, pairs["north"].private)
    with pytest.raises(UserError, match=fault):
        supernode.check(right._replace(**{field: tmp_path / "file"}))


def test_nothing_calls_home():
    code = (
        "from gxdistill.federated.flower.messages import check_installed; check_installed(); "
        "from flwr.supercore import telemetry; print(telemetry.FLWR_TELEMETRY_ENABLED)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "FLWR_TELEMETRY_ENABLED": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "0\n"
