"""A server's rounds with sites that fail in every way, beside the same in NumPy."""

import json

import jax
import numpy as np
import pytest

from gxdistill.errors import UserError
from gxdistill.federated import exchange
from gxdistill.federated.exchange import RefusedError
from gxdistill.federated.rounds import Upload
from gxdistill.package.seeds import Use
from gxdistill.runtime import interrupts
from gxdistill.tasks.federation import agreement, serving
from gxdistill.tasks.federation.serving import Patience
from tests import toy
from tests.tasks.federation import small_federations

NAMES = ("east", "north", "south")
IMAGES = {"east": 3, "north": 1, "south": 2}
ROUNDS = 20
SETTINGS = {
    "network__options": {"width": 2, "depth": 1},
    "federation__rounds": ROUNDS,
    "federation__secure": False,
    "federation__protect": (),
}
PATIENCE = Patience(round_s=5, first_s=0)


class Sites:
    """Sites in this process that draw the weights halfway to a value of their own."""

    def __init__(self, fail=None):
        self.fail = fail or (lambda *arguments: arguments[-1])  # `(number, name, answer)`
        self.rounds, self.dismissed, self.here = [], [], frozenset(NAMES)

    def present(self):
        return self.here

    def exchange(self, packets, timeout):
        assert timeout in (PATIENCE.round_s, serving._END_S)
        if any(packet.fields["kind"] == "end" for packet in packets.values()):
            self.dismissed.append(sorted(packets))
            return {name: exchange.fault(KeyError()) for name in packets}  # Nobody minds.
        came = {}
        for name, packet in packets.items():
            number = packet.fields["round"]
            target = np.float32(NAMES.index(name))
            update = [0.5 * (target - leaf) for leaf in packet.arrays]
            upload = Upload(update, np.float32(0), np.float32(number))
            answer = exchange.answer(number, upload, IMAGES[name], loss=True)
            came[name] = self.fail(number, name, answer)
        self.rounds.append(number)
        return {name: packet for name, packet in came.items() if packet is not None}


def _serve(workdir, link, log=lambda _: None, **changes):
    job = small_federations.make(workdir, log, **(SETTINGS | changes))
    with toy.quick_compilation():
        return serving.serve(job, link, NAMES, PATIENCE)


def _in_numpy(start, failed):
    """The weights at the end: of each round, the mean over those that did not fail in it."""
    weights = start
    for failing in failed:
        left = [name for name in NAMES if name != failing]
        total = sum(IMAGES[name] for name in left)
        shares = [(IMAGES[name] / total, NAMES.index(name)) for name in left]
        moves = [sum(s * 0.5 * (t - leaf) for s, t in shares) for leaf in weights]
        weights = [leaf + move for leaf, move in zip(weights, moves, strict=True)]
    return weights


def _start():
    job = small_federations.make("nowhere", **SETTINGS)
    return jax.tree.leaves(agreement.network_of(job.config).init(job.key(Use.KNOWN)))


FAILURES = {
    "killed": (lambda _: None, "it did not answer within 5 s"),
    "not finite": (
        lambda a: a._replace(arrays=[leaf * np.float32(np.nan) for leaf in a.arrays]),
        "array 0 holds a number that is not finite",
    ),
    "of another shape": (
        lambda a: a._replace(arrays=[leaf[..., None] for leaf in a.arrays]),
        "array 0 is of shape",
    ),
    "stale": (
        lambda a: a._replace(fields={**a.fields, "round": a.fields["round"] - 1}),
        "its answer is for round",
    ),
    "failing": (lambda _: exchange.fault(OSError("p7.png")), "it failed with OSError"),
    "garbled": (lambda _: RefusedError("its message cannot be read"), "its message cannot be"),
}


@pytest.mark.parametrize("kinds", [("killed",), tuple(FAILURES)])
def test_a_site_that_fails_in_each_of_twenty_rounds_is_named_and_the_others_decide(kinds, tmp_path):
    failed = [NAMES[number % 3] for number in range(ROUNDS)]
    ways = [FAILURES[kinds[number % len(kinds)]] for number in range(ROUNDS)]
    said = []
    link = Sites(lambda number, name, a: ways[number][0](a) if name == failed[number] else a)
    learned = _serve(tmp_path, link, said.append)
    assert link.rounds == list(range(ROUNDS))
    for leaf, expected in zip(jax.tree.leaves(learned), _in_numpy(_start(), failed), strict=True):
        np.testing.assert_allclose(leaf, expected, atol=1e-6)
    lines = [json.loads(line) for line in (tmp_path / "rounds.jsonl").read_text().splitlines()]
    for number, line in enumerate(lines):
        assert line["step"] == number + 1
        assert line["joined"] == [name for name in NAMES if name != failed[number]]
        assert list(line["left_out"]) == [failed[number]]
        reason = ways[number][1]
        assert line["left_out"][failed[number]].startswith(reason)
        shown = f"round {number + 1}: site {failed[number]} is left out: {reason}"
        assert any(text.startswith(shown) for text in said)
    assert "p7.png" not in str(lines) + str(said)


def test_who_comes_late_and_leaves_early_takes_part_in_between(tmp_path):
    link, said = Sites(), []
    link.here = frozenset({"east", "north"})

    def come_and_go(number, _, answer):
        link.here = frozenset(NAMES if 1 <= number < 3 else NAMES[:2])
        return answer

    link.fail = come_and_go
    _serve(tmp_path, link, said.append, federation__rounds=5)
    lines = (tmp_path / "rounds.jsonl").read_text().splitlines()
    joined = [json.loads(line)["joined"] for line in lines]
    assert [number for number, names in enumerate(joined) if "south" in names] == [2, 3]
    assert [line for line in said if "south" in line] == [
        "site south is here",
        "site south is gone",
    ]


def test_a_round_of_which_nothing_came_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(serving, "_PAUSE_S", 0)
    tries = []

    def nothing_twice(number, _, answer):
        tries.append(number)
        return None if number == 1 and tries.count(1) <= 2 * len(NAMES) else answer

    link = Sites(nothing_twice)
    learned = _serve(tmp_path, link, federation__rounds=3)
    assert link.rounds == [0, 1, 1, 1, 2]
    expected = _in_numpy(_start(), [None] * 3)
    for leaf, value in zip(jax.tree.leaves(learned), expected, strict=True):
        np.testing.assert_allclose(leaf, value, atol=1e-6)


def test_a_server_that_was_stopped_in_any_round_ends_as_one_that_was_not(tmp_path, monkeypatch):
    changes = {"federation__rounds": 3, "federation__server": "adam"}
    whole = _serve(tmp_path / "whole", Sites(), **changes)
    for stop in (1, 2):
        calls = []

        def interrupt(calls=calls, stop=stop):
            calls.append(1)
            if len(calls) == stop:
                raise KeyboardInterrupt

        workdir = tmp_path / str(stop)
        with monkeypatch.context() as patched:
            patched.setattr(interrupts, "check", interrupt)
            with pytest.raises(KeyboardInterrupt):
                _serve(workdir, Sites(), **changes)
        resumed = _serve(workdir, Sites(), **changes)
        for leaf, other in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
            np.testing.assert_array_equal(leaf, other)
        lines = (workdir / "rounds.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]


def test_each_round_asks_those_whom_a_simulation_would_have_drawn(tmp_path):
    asked = []
    link = Sites(lambda number, name, answer: asked.append((number, name)) or answer)
    count = 8
    _serve(tmp_path, link, federation__rounds=count, federation__participation=0.5)
    job = small_federations.make("nowhere", **SETTINGS)
    key = job.key(Use.LOOP)
    for number in range(count):
        round_key = jax.random.fold_in(key, number)
        joins = jax.random.bernoulli(jax.random.fold_in(round_key, 2**32 - 1), 0.5, (3,))
        drawn = [name for name, joined in zip(NAMES, joins, strict=True) if joined]
        assert [name for n, name in asked if n == number] == drawn


@pytest.mark.parametrize(
    ("changes", "patience", "fault"),
    [
        ({"federation__secure": True}, PATIENCE, "federation.secure is on: masked sums"),
        ({"federation__protect": ("patient",)}, PATIENCE, "federation.protect names 'patient'"),
        ({}, Patience(least=4), "--least is 4, and 3 sites may take part: east, north, south"),
    ],
)
def test_what_a_network_cannot_do_is_refused_before_anything_is_written(
    changes, patience, fault, tmp_path
):
    job = small_federations.make(tmp_path / "new", **(SETTINGS | changes))
    with pytest.raises(UserError, match=fault):
        serving.serve(job, Sites(), NAMES, patience)
    assert not (tmp_path / "new").exists()


def test_a_server_that_is_done_gives_its_weights_again_and_begins_nothing_else(tmp_path):
    first, second = Sites(), Sites()
    first.here = frozenset(NAMES[:2])  # "south" misses the end.
    learned = _serve(tmp_path, first, federation__rounds=1)
    assert first.dismissed == [["east", "north"]]
    again = _serve(tmp_path, second, federation__rounds=1)
    assert (second.rounds, second.dismissed) == ([], [[*NAMES]])
    for leaf, other in zip(jax.tree.leaves(learned), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(leaf, other)


def test_another_federation_in_the_same_folder_is_refused(tmp_path):
    _serve(tmp_path, Sites(), federation__rounds=1)
    with pytest.raises(UserError, match=r"federation.rounds \(was 1, is 2\)"):
        _serve(tmp_path, Sites(), federation__rounds=2)
