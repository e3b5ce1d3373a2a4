"""Server and client in two processes under TLS."""

import signal
import socket
import threading
import time

import numpy as np
import pytest

from gxdistill.errors import UserError
from gxdistill.service import certificates, server, tokens
from gxdistill.service.client import Client
from tests.service import serving, tiny_server

DIGEST = tiny_server.digest_of(1)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with serving.serving(tmp_path_factory.mktemp("server"), concurrent=32) as running:
        yield running


def _client(running, **options):
    options = {"digest": DIGEST, "authority": running.folder / "ca.pem", **options}
    token = options.pop("token", running.token)
    return Client(options.pop("url", running.url), token, **options)


def test_images_are_segmented_as_by_loops_of_another_library(running):
    images = serving.slices(5)
    with _client(running) as client:
        served = client.served()
        result = client.segment(images, len(served.classes))
    assert served.shape == (16, 12, 1)
    assert served.classes == ("background", "left", "right")
    correct = serving.expected(images, tiny_server.kernel_of(1))
    np.testing.assert_allclose(result, correct, atol=1e-5)


def test_clients_at_once_each_get_their_own_masks_and_nothing_is_compiled(running):
    kernel, wrong = tiny_server.kernel_of(1), []

    def work(seed):
        images = serving.slices(1 + seed % 5, seed)
        with _client(running) as client:
            for _ in range(4):
                result = client.segment(images, 3)
                if not np.allclose(result, serving.expected(images, kernel), atol=1e-5):
                    wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    figures = _metrics(running)
    assert figures["gxdistill_compilations_under_load"] == 0
    assert figures["gxdistill_batch_images_count"] < 48  # Fewer batches than requests.


def _metrics(running):
    with _client(running) as client:
        text = client.text("/metrics")
    rows = [line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#"]
    return {name: float(value) for name, value in rows}


def test_a_request_that_is_asked_again_is_counted_once_and_answered_alike(running):
    images, identity = serving.slices(2, 7), "ab" * 16
    before = server.totals(running.folder / "journal.db")
    with _client(running) as client:
        first, second = (client.segment(images, 3, identity) for _ in range(2))
        np.testing.assert_array_equal(first, second)
        with pytest.raises(UserError, match="Another request has this identity"):
            client.segment(serving.slices(2, 8), 3, identity)
    after = server.totals(running.folder / "journal.db")
    (token,) = after
    assert np.subtract(after[token], before.get(token, (0, 0))).tolist() == [1, 2]


def test_what_a_client_does_not_trust_gets_nothing(running, tmp_path):
    with pytest.raises(UserError, match="not of HTTPS"):
        _client(running, url=running.url.replace("https", "http"))
    certificates.make(tmp_path, serving.HOSTS)  # Another authority.
    with (
        _client(running, authority=tmp_path / "ca.pem") as client,
        pytest.raises(UserError, match="not to be trusted"),
    ):
        client.served()
    with (
        _client(running, digest="0" * 64) as client,
        pytest.raises(UserError, match="expected was 0000"),
    ):
        client.served()
    with (
        _client(running, digest="0" * 64) as client,
        pytest.raises(UserError, match="another model"),
    ):
        client.segment(serving.slices(1), 3)


def test_a_server_without_tls_gets_nothing(running):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        received = []

        def answer():
            connection, _ = listener.accept()
            received.append(connection.recv(4096))
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"https://localhost:{listener.getsockname()[1]}"
        with (
            _client(running, url=url) as client,
            pytest.raises(UserError, match="does not speak TLS"),
        ):
            client.segment(serving.slices(1), 3)
        thread.join()
    assert running.token.encode() not in received[0]


def test_only_a_token_that_was_made_and_not_revoked_is_let_in(running):
    path = running.folder / "tokens.json"
    token = tokens.make(path, "to be revoked")
    assert token not in path.read_text()  # At rest there are digests alone.
    with _client(running, token=token) as client:
        client.segment(serving.slices(1), 3)
        tokens.revoke(path, "to be revoked")
        with pytest.raises(UserError, match="valid token is missing"):
            client.segment(serving.slices(1), 3)
    for other in (token, running.token[:17] + "x" * 43, "gxd_" + "0" * 12 + running.token[16:]):
        with (
            _client(running, token=other) as client,
            pytest.raises(UserError, match="valid token is missing"),
        ):
            client.served()
    with pytest.raises(UserError, match="The token is none"):
        _client(running, token="gxd_")


def test_logs_and_metrics_hold_neither_tokens_nor_images(running):
    with _client(running) as client:
        client.segment(serving.slices(1), 3, "cd" * 16)
        text = str(running.seen) + client.text("/metrics")
    while not running.lines.empty():
        text += str(running.lines.get())
    assert "/v1/segment" in text
    assert running.token not in text
    assert running.token[-20:] not in text
    assert "cd" * 16 not in text


def test_a_new_model_takes_over_and_no_request_is_lost(tmp_path):
    kernels = {tiny_server.digest_of(seed): tiny_server.kernel_of(seed) for seed in (1, 2)}
    with serving.serving(tmp_path) as running:
        stop, digests, faults = threading.Event(), set(), []

        def work(seed):
            images = serving.slices(3, seed)
            with _client(running, digest=None) as client:
                while not stop.is_set():
                    result = client.segment(images, 3)
                    fits = [
                        digest
                        for digest, kernel in kernels.items()
                        if np.allclose(result, serving.expected(images, kernel), atol=1e-5)
                    ]
                    digests.update(fits)
                    if len(fits) != 1:
                        faults.append(fits)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
        for thread in threads:
            thread.start()
        try:
            running.folder.joinpath("model").write_text("no number")
            running.wait_for("model refused")
            running.folder.joinpath("model").write_text("2")
            running.wait_for("model")
            with _client(running, digest=tiny_server.digest_of(2)) as client:
                client.segment(serving.slices(1), 3)
            with _client(running) as client:  # Who expects the one before still gets it.
                client.segment(serving.slices(1), 3)
            time.sleep(0.2)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert faults == []
        assert digests == set(kernels)
        assert _metrics(running)["gxdistill_compilations_under_load"] == 0


def test_sigterm_answers_what_was_accepted(tmp_path):
    images, kernel = serving.slices(1), tiny_server.kernel_of(1)
    with serving.serving(tmp_path, sleep=0.2, together=0) as running:
        results = []

        def work():
            with _client(running, patience_s=1.0) as client:
                results.append(client.segment(images, 3))

        threads = [threading.Thread(target=work) for _ in range(5)]
        for thread in threads:
            thread.start()
        while _metrics(running)["gxdistill_requests_active"] < 5:
            time.sleep(0.01)
        assert running.stop(signal.SIGTERM) == 0
        for thread in threads:
            thread.join()
    assert len(results) == 5
    for result in results:
        np.testing.assert_allclose(result, serving.expected(images, kernel), atol=1e-5)


def test_a_client_who_sends_on_while_the_server_stops_costs_no_other_its_answer(tmp_path):
    """TLS calls data after the goodbye an error; it must remain that connection's own."""
    asking = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with serving.serving(tmp_path, sleep=2) as running, running.tls() as deaf:
        deaf.sendall(asking)
        assert deaf.recv(4096).startswith(b"HTTP/1.1 200")
        results = []

        def work():
            with _client(running, patience_s=1.0) as client:
                results.append(client.segment(serving.slices(1), 3))

        thread = threading.Thread(target=work)
        thread.start()
        while _metrics(running)["gxdistill_requests_active"] < 1:
            time.sleep(0.01)
        running.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)  # The idle connection is told goodbye at once; it does not listen.
        deaf.sendall(asking)
        assert running.process.wait(60) == 0
        thread.join()
    assert len(results) == 1


_KILLED = {10: signal.SIGKILL, 40: signal.SIGKILL}  # After how many answers.
_KILLED_OFTEN = {
    **dict.fromkeys((50, 230, 410, 770, 950), signal.SIGKILL),
    590: signal.SIGTERM,
}


@pytest.mark.parametrize(
    ("clients", "each", "ends"),
    [
        pytest.param(6, 12, _KILLED, id="72"),
        pytest.param(10, 100, _KILLED_OFTEN, id="1000", marks=pytest.mark.slow),
    ],
)
def test_after_kills_every_client_has_the_right_masks_and_none_is_counted_twice(
    tmp_path, clients, each, ends
):
    running = serving.start(tmp_path, serving.prepare(tmp_path))
    kernel, wrong, done = tiny_server.kernel_of(1), [], []

    def work(seed):
        with _client(running, patience_s=60) as client:
            for turn in range(each):
                images = serving.slices(1 + turn % 3, each * seed + turn)
                result = client.segment(images, 3)
                done.append(len(images))
                if not np.allclose(result, serving.expected(images, kernel), atol=1e-5):
                    wrong.append((seed, turn))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(clients)]
    for thread in threads:
        thread.start()
    port = running.port
    try:
        for enough, number in sorted(ends.items()):
            while len(done) < enough:
                time.sleep(0.002)
            running.process.send_signal(number)
            assert running.process.wait(60) == (0 if number == signal.SIGTERM else -number)
            running = serving.start(tmp_path, running.token, port=port)
        for thread in threads:
            thread.join()
        assert wrong == []
        ((requests, images),) = server.totals(tmp_path / "journal.db").values()
        assert (requests, images) == (clients * each, sum(done))
    finally:
        running.process.kill()
        running.process.wait()
