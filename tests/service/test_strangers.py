"""What strangers send: malformed, slow, half open, too much; others are answered meanwhile."""

import contextlib
import json
import secrets
import socket
import struct
import threading
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gxdistill.service import protocol, server
from gxdistill.service.client import Client
from tests.service import serving, tiny_server

_DEADLINES = {"handshake_s": 1, "header_s": 1, "body_s": 1}
_CLOSED_S = 5.0  # The longest deadline, what is read of a refused body, and a busy machine.


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with serving.serving(tmp_path_factory.mktemp("server"), **_DEADLINES) as running:
        yield running
        assert running.process.poll() is None  # Nothing has crashed it.


def _exchange(running, payload, seconds=_CLOSED_S):
    """Sends bytes over TLS; returns what comes back until the server closes, and after how long."""
    began, answer = time.monotonic(), b""
    with running.tls() as connection:
        connection.settimeout(seconds)
        try:
            connection.sendall(payload)
            while part := connection.recv(65536):
                answer += part
        except TimeoutError:
            pytest.fail(f"still open after {seconds} s")
        except OSError:
            pass  # Reset: closed, too.
    return answer, time.monotonic() - began


def _request(running, body, headers=(), *, length=None, close=True):
    lines = {
        "Host": "localhost",
        "Authorization": f"Bearer {running.token}",
        "Content-Type": protocol.MEDIA_TYPE,
        "Idempotency-Key": secrets.token_hex(16),
        "Content-Length": str(len(body) if length is None else length),
        **({"Connection": "close"} if close else {}),
        **dict(headers),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value is not None)
    return f"POST {protocol.SEGMENT} HTTP/1.1\r\n{head}\r\n".encode("latin1") + body


def _status(answer):
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else None


def _tensors(header, data=b""):
    raw = header if isinstance(header, bytes) else header.encode()
    return struct.pack("<Q", len(raw)) + raw + data


def test_a_sound_request_is_answered(running):
    body = protocol.encode("images", serving.slices(1))
    assert _status(_exchange(running, _request(running, body))[0]) == 200


@pytest.mark.parametrize(
    ("status", "change"),
    [
        (401, {"Authorization": None}),
        (401, {"Authorization": "Basic eDp5"}),
        (401, {"Authorization": "Bearer " + "x" * 9000}),
        (400, {"Idempotency-Key": None}),
        (400, {"Idempotency-Key": "A" * 32}),
        (400, {"If-Match": "*"}),
        (412, {"If-Match": f'"{"0" * 64}"'}),
        (415, {"Content-Type": "application/x-pickle"}),
    ],
)
def test_a_header_that_does_not_fit_is_refused(running, status, change):
    body = protocol.encode("images", serving.slices(1))
    answer, _ = _exchange(running, _request(running, body, change))
    assert _status(answer) == status


@pytest.mark.parametrize(
    ("payload", "status"),
    [
        (b"\x00\xff garbage\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20_000, 431),
        (b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET /other HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404),
        (b"DELETE /v1/segment HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 405),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", None),
        (
            b"GET /health HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nHTTP2-Settings: \r\n"
            b"Connection: Upgrade, HTTP2-Settings\r\n\r\n",
            101,
        ),
        (
            b"GET /v1/segment HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
            403,
        ),
    ],
)
def test_what_is_no_request_of_ours_is_refused_and_closed(running, payload, status):
    answer, seconds = _exchange(running, payload)
    assert _status(answer) == status
    assert seconds < _CLOSED_S


_SHAPE = '{"images":{"dtype":"F32","shape":%s,"data_offsets":[0,%d]}}'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"1234567",
        struct.pack("<Q", 2**63),
        struct.pack("<Q", 10) + b"{",
        _tensors("not json"),
        _tensors("{}"),
        _tensors(_SHAPE % ("[0,16,12,1]", 0)),
        _tensors(_SHAPE % ("[1,16,12]", 768), bytes(768)),
        _tensors(_SHAPE % ("[1,12,16,1]", 768), bytes(768)),
        _tensors(_SHAPE % ("[99999999999,16,12,1]", 768), bytes(768)),
        _tensors(_SHAPE % ("[18446744073709551617,16,12,1]", 768), bytes(768)),
        _tensors(_SHAPE % ("[1,16,12,1]", 768), bytes(767)),
        _tensors((_SHAPE % ("[1,16,12,1]", 768)).replace("F32", "I32"), bytes(768)),
        _tensors((_SHAPE % ("[1,16,12,1]", 768)).replace("images", "mask"), bytes(768)),
        _tensors(_SHAPE % ("[1,16,12,1]", 768), np.full(192, np.nan, np.float32).tobytes()),
        _tensors(_SHAPE % ("[17,16,12,1]", 17 * 768), bytes(17 * 768))[:-1000],
        _tensors('{"a":' * 300),
    ],
)
def test_arrays_that_do_not_fit_are_refused(running, body):
    answer, _ = _exchange(running, _request(running, body))
    assert _status(answer) == 422
    assert b"malformed" in answer


def test_a_body_that_is_too_large_is_refused_before_it_is_kept(running):
    before = running.resident()
    body = bytes(40 << 20)
    told, _ = _exchange(running, _request(running, body[: 1 << 20], length=len(body)))
    chunked = _request(running, b"", {"Content-Length": None, "Transfer-Encoding": "chunked"})
    chunks = b"".join(b"100000\r\n" + bytes(1 << 20) + b"\r\n" for _ in range(40))
    untold, _ = _exchange(running, chunked + chunks)
    assert _status(told) in (413, None)  # None where the connection was reset while sending.
    assert _status(untold) in (413, None)
    assert running.resident() - before < 8 << 20


def _bodies():
    sound = protocol.encode("images", serving.slices(2))
    cut = st.integers(0, len(sound)).map(lambda n: sound[:n])
    flipped = st.tuples(st.integers(0, 80), st.integers(1, 255)).map(
        lambda at: sound[: at[0]] + bytes([sound[at[0]] ^ at[1]]) + sound[at[0] + 1 :]
    )
    header = st.dictionaries(
        st.sampled_from(["images", "__metadata__", "x"]),
        st.fixed_dictionaries(
            {
                "dtype": st.sampled_from(["F32", "F64", "U8", "BF16", "F8_E4M3", "?"]),
                "shape": st.lists(st.integers(-1, 2**64), max_size=5),
                "data_offsets": st.lists(st.integers(-1, 2**64), max_size=3),
            }
        ),
        max_size=3,
    ).map(lambda table: _tensors(json.dumps(table), bytes(768)))
    return st.one_of(st.binary(max_size=300), cut, flipped, header)


def _headers():
    names = st.sampled_from(
        ["Authorization", "Content-Type", "Idempotency-Key", "If-Match", "Host", "Expect", "X-Any"]
    )
    values = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=60)
    return st.dictionaries(names, values, max_size=2)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(body=_bodies(), headers=_headers(), missing=st.integers(-20, 20))
def test_whatever_is_sent_is_answered_or_closed(running, body, headers, missing):
    length = max(0, len(body) + min(missing, 0))  # Never more than is sent: that is the slow case.
    answer, seconds = _exchange(running, _request(running, body, headers, length=length))
    assert answer == b"" or 200 <= _status(answer) < 500, answer[:200]
    assert seconds < _CLOSED_S


def _slow_senders(running):
    def plain():
        return socket.create_connection(("127.0.0.1", running.port), timeout=10)

    def drip(connection):
        end = time.monotonic() + 8
        while time.monotonic() < end:
            connection.sendall(b"a")
            time.sleep(0.1)

    head = b"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nX-A: "
    token = _request(running, b"abc", length=700, close=False)
    return {
        "no hello": (plain, b"", None),
        "half a hello": (plain, b"\x16\x03\x01\x02\x00\x01", None),
        "plain HTTP": (plain, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", None),
        "nothing": (running.tls, b"", None),
        "half a header": (running.tls, head, None),
        "a dripping header": (running.tls, head, drip),
        "half a body": (running.tls, token, None),
        "a dripping body": (running.tls, token, drip),
        "half a body of a stranger": (
            running.tls,
            token.replace(running.token.encode(), b"x"),
            drip,
        ),
    }


def test_slow_and_half_open_senders_are_closed_while_others_are_served(running):
    took = {}

    def work(name, connect, payload, more):
        began = time.monotonic()
        try:
            with connect() as connection:
                connection.settimeout(20)
                connection.sendall(payload)
                if more:
                    threading.Thread(target=_quietly, args=(more, connection)).start()
                while connection.recv(4096):
                    pass
        except TimeoutError:
            took[name] = 20.0
            return
        except OSError:
            pass
        took[name] = time.monotonic() - began

    cases = _slow_senders(running)
    threads = [
        threading.Thread(target=work, args=(name, *case))
        for name, case in cases.items()
        for _ in "ab"
    ]
    for thread in threads:
        thread.start()
    digest, authority = tiny_server.digest_of(1), running.folder / "ca.pem"
    with Client(running.url, running.token, digest=digest, authority=authority) as client:
        for seed in range(5):
            began = time.monotonic()
            client.segment(serving.slices(1, seed), 3)
            assert time.monotonic() - began < 2
    for thread in threads:
        thread.join()
    assert max(took.values()) < _CLOSED_S, took


def _quietly(function, connection):
    with contextlib.suppress(OSError, ValueError):
        function(connection)


def test_a_token_may_ask_so_often_and_so_much_at_a_time(tmp_path):
    limits = {"requests_a_minute": 60, "concurrent": 2, "sleep": 0.5, "together": 0}
    body = protocol.encode("images", serving.slices(1))
    with serving.serving(tmp_path, **limits) as running:
        statuses = []

        def work(number):
            identity = {"Idempotency-Key": f"{number:032x}"}
            answer, _ = _exchange(running, _request(running, body, identity), 20)
            statuses.append((_status(answer), b"retry-after: " in answer))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(statuses) == [(200, False)] * 2 + [(429, True)] * 3
        assert sum(requests for requests, _ in server.totals(tmp_path / "journal.db").values()) == 2
