"""Packets that are what they must be, and each way in which they may not be."""

import jax.numpy as jnp
import numpy as np
import pytest

from gxdistill.federated import aggregation, exchange, rounds
from gxdistill.federated.exchange import Packet, RefusedError
from gxdistill.federated.rounds import Upload

LIKE = {"w": jnp.zeros((2, 3)), "b": jnp.zeros(3)}
SETTINGS = "a" * 64


def _tree(seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=leaf.shape).astype(np.float32) for name, leaf in LIKE.items()}


def _state():
    server = aggregation.server_optimizer("sgd", 1.0)
    protection = rounds.Protection(bound=0.7)
    return rounds.first_state(server, protection, _tree(), jnp.zeros(()))


def _answer(**fields):
    upload = Upload(_tree(1), jnp.float32(1), jnp.float32(0.1))
    packet = exchange.answer(4, upload, 20, loss=True)
    return packet._replace(fields={**packet.fields, **fields})


def test_what_is_packed_is_read_back_bit_for_bit():
    packet = exchange.assign(_state(), 3, SETTINGS)
    asked = exchange.read_assignment(packet, LIKE, SETTINGS, rounds=1)
    assert (asked.number, asked.site) == (0, 3)
    assert asked.log_bound == jnp.log(jnp.float32(0.7))
    for name, leaf in _tree().items():
        np.testing.assert_array_equal(asked.params[name], leaf)
    answer = exchange.read_answer(_answer(), LIKE, 4)
    assert answer.images == 20
    assert answer.upload.loss == np.float32(0.1)
    np.testing.assert_array_equal(answer.upload.update["w"], _tree(1)["w"])


def test_a_protected_site_keeps_its_loss():
    upload = Upload(_tree(), jnp.float32(0), jnp.float32(0.25))
    packet = exchange.answer(0, upload, 1, loss=False)
    assert 0.25 not in packet.fields.values()


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"round": 3}, "its answer is for round 4, not for round 5"),
        ({"round": "/etc/passwd"}, "its answer is for no round, not for round 5"),
        ({"round": True}, "its answer is for round 2, not for round 5"),
        ({"images": 0}, "its `images` is no whole number from 1 to"),
        ({"images": 10**9}, "its `images` is no whole number from 1 to"),
        ({"images": 2.0}, "its `images` is no whole number"),
        ({"loss": float("nan")}, "its `loss` is no finite number"),
        ({"bit": 1e39}, "its `bit` is no finite number"),
        ({"bit": [1.0]}, "its `bit` is no finite number"),
        ({"kind": "end"}, "its answer is no upload"),
        ({"kind": ["fault"]}, "its answer is no upload"),
        ({"kind": "fault", "class": "KeyError"}, "it failed with KeyError$"),
        ({"kind": "fault", "class": "KeyError: p7 /mnt/x"}, "it failed with an error$"),
        ({"kind": "fault", "class": 7}, "it failed with an error$"),
    ],
)
def test_fields_that_are_not_what_they_must_be_are_refused(fields, fault):
    with pytest.raises(RefusedError, match=fault):
        exchange.read_answer(_answer(**fields), LIKE, 4)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda a: a[:1], "1 arrays came, not 2"),
        (lambda a: [*a, a[0]], "3 arrays came, not 2"),
        (lambda a: a[::-1], r"array 0 is of shape \[2, 3\], not \[3\]"),
        (lambda a: [a[0], a[1].astype(np.float64)], "array 1 is of float64, not float32"),
        (lambda a: [a[0], a[1] * np.float32(np.nan)], "array 1 holds a number that is not finite"),
        (lambda a: [a[0] / np.float32(0), a[1]], "array 0 holds a number that is not finite"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
def test_arrays_that_are_not_the_weights_are_refused(change, fault):
    packet = _answer()
    with pytest.raises(RefusedError, match=fault):
        exchange.read_answer(packet._replace(arrays=change(packet.arrays)), LIKE, 4)


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"settings": "b" * 64}, r"settings are others \(digest bbbbbbbbbbbb\)"),
        ({"settings": "<script>"}, r"settings are others \(digest none\)"),
        ({"round": 5}, "its `round` is no whole number from 0 to 4"),
        ({"round": -1}, "its `round` is no whole number"),
        ({"site": 2**40}, "its `site` is no whole number"),
        ({"log_bound": float("inf")}, "its `log_bound` is no finite number"),
    ],
)
def test_a_question_of_another_federation_is_refused(fields, fault):
    packet = exchange.assign(_state(), 0, SETTINGS)
    packet = packet._replace(fields={**packet.fields, **fields})
    with pytest.raises(RefusedError, match=fault):
        exchange.read_assignment(packet, LIKE, SETTINGS, rounds=5)


def test_a_fault_tells_no_more_than_a_class():
    packet = exchange.fault(FileNotFoundError("/data/patient_7/image.png"))
    assert packet == Packet((), {"kind": "fault", "class": "FileNotFoundError"})


def test_who_fails_is_told_why_and_the_others_are_read():
    class Link:
        def present(self):
            return frozenset("abcd")

        def exchange(self, packets, timeout):
            assert timeout == 7
            came = {"a": _answer(), "b": _answer(round=1), "d": RefusedError("it is garbled")}
            return {name: packet for name, packet in came.items() if name in packets}

    def read(packet):
        return exchange.read_answer(packet, LIKE, 4)

    answers, left_out = exchange.gather(Link(), dict.fromkeys("abcd", _answer()), read, 7)
    assert list(answers) == ["a"]
    assert left_out == {
        "b": "its answer is for round 2, not for round 5",
        "c": "it did not answer within 7 s",
        "d": "it is garbled",
    }


@pytest.mark.parametrize("robust", [None, aggregation.median])
def test_uploads_are_averaged_as_numpy_does(robust):
    uploads = [Upload(_tree(i), jnp.float32(i % 2), jnp.float32(i)) for i in range(3)]
    weights = [5.0, 1.0, 2.0]
    mean = rounds.mean_of_uploads(uploads, weights, robust)
    leaves = np.stack([upload.update["w"] for upload in uploads])
    expected = np.median(leaves, 0) if robust else np.average(leaves, 0, weights)
    np.testing.assert_allclose(mean.update["w"], expected, rtol=1e-5)
    np.testing.assert_allclose(mean.bit, 1 / 3)
    losses = np.arange(3.0)
    np.testing.assert_allclose(
        mean.loss, losses.mean() if robust else np.average(losses, weights=weights)
    )
