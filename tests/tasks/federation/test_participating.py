"""What sites answer: as a simulation of them computes it, with noise that is never used twice."""

import jax
import numpy as np
import pytest

from gxdistill.errors import UserError
from gxdistill.federated import aggregation, exchange, rounds
from gxdistill.federated.exchange import RefusedError
from gxdistill.storage import checkpoint
from gxdistill.tasks.federation import agreement, participating, serving, simulating
from tests import toy
from tests.tasks.federation import hospital_folders, small_federations
from tests.tasks.federation.hospital_folders import NAMES


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("folders")
    hospital_folders.write(root)
    return root


def _job(folders, workdir, manifest, log=lambda _: None, **changes):
    settings = hospital_folders.settings_of(folders, manifest) | changes
    return small_federations.make(workdir, log, **settings)


class _Link:
    """Sites in this process, which answer as they do over a network."""

    def __init__(self, sites):
        self.sites = sites

    def present(self):
        return frozenset(self.sites)

    def exchange(self, packets, timeout):
        del timeout
        return {name: self.sites[name](packet)[0] for name, packet in packets.items()}


@pytest.mark.slow
def test_sites_with_their_own_patients_alone_do_as_a_simulation_of_all(folders, tmp_path):
    """Three rounds."""
    with toy.quick_compilation():
        simulated = _job(folders, tmp_path / "simulated", "all.csv")
        simulating.simulate(simulated)
        sites = {
            name: participating.Participant(_job(folders, tmp_path / name, f"{name}.csv"), name)
            for name in NAMES
        }
        server = _job(folders, tmp_path / "server", "nowhere.csv")
        learned = serving.serve(server, _Link(sites), NAMES, serving.Patience())
    optimizer = aggregation.server_optimizer("sgd", 1.0)
    like = rounds.first_state(optimizer, None, learned, agreement.key_of(server.config))
    folder = simulated.workdir / "trainings/federated/checkpoints"
    step, state, _ = checkpoint.restore(folder, like)
    assert step == 3
    start = agreement.network_of(server.config).init(jax.random.key(0))
    for leaf, expected in zip(*map(jax.tree.leaves, (learned, state.learned)), strict=True):
        np.testing.assert_allclose(leaf, expected, atol=1e-6, rtol=0)
    moved = [
        np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (learned, start)), strict=True)
    ]
    assert max(moved) > 1e-3
    # The site has what the server has.
    for leaf, sent in zip(*map(jax.tree.leaves, (learned, sites["north"].params)), strict=True):
        np.testing.assert_array_equal(leaf, sent)


PROTECTED = {
    "federation__protect": ("site",),
    "federation__rounds": 2,
    "federation__local_steps": 1,
    "federation__site__clip": 0.5,
    "federation__site__noise": 2.0,
}


def _question(site, number, shift=0.0):
    params = site._network.init(jax.random.key(3))
    params = jax.tree.map(lambda leaf: leaf + np.float32(shift), params)
    protection = rounds.Protection(0.5)
    server = aggregation.server_optimizer("sgd", 1.0)
    state = rounds.first_state(server, protection, params, jax.random.key(0))
    packet = exchange.assign(state, 0, site._digest)
    return packet._replace(fields={**packet.fields, "round": number})


def test_a_protected_site_answers_a_question_once_and_no_more_often_than_it_promised(
    folders, tmp_path
):
    said = []

    def start():
        return participating.Participant(
            _job(folders, tmp_path, "north.csv", said.append, **PROTECTED), "north"
        )

    def flat(packet):
        return np.concatenate([leaf.ravel() for leaf in packet.arrays])

    with toy.quick_compilation():
        site = start()
        first, is_last = site(_question(site, 0))
        assert not is_last
        assert first.fields["loss"] == 0  # No noise protects it.
        assert first.fields["images"] == 2
        # Killed and started anew, it gives the very same answer to the very same question.
        site = start()
        again, _ = site(_question(site, 0))
        np.testing.assert_array_equal(flat(again), flat(first))
        # Another question has noise of its own: of the same, the difference would have none.
        other, _ = site(_question(site, 0, shift=1e-6))
        deviation = np.std(flat(other) - flat(first))
        np.testing.assert_allclose(deviation, np.sqrt(2) * 2.0 * 0.5, rtol=0.2)
        assert site.promise.account.events[0].count == 2
        site = start()
        with pytest.raises(UserError, match="This site answered 2 times"):
            site(_question(site, 1))


def test_what_is_no_question_of_this_federation_is_refused(folders, tmp_path):
    site = participating.Participant(_job(folders, tmp_path, "north.csv"), "north")
    question = _question(site, 0)
    for change in ({"settings": "0" * 64}, {"round": 3}, {"kind": "end", "round": 0}):
        packet = question._replace(fields={**question.fields, **change}, arrays=[])
        with pytest.raises(RefusedError):
            site(packet)


@pytest.mark.parametrize(
    ("manifest", "changes", "fault"),
    [
        ("all.csv", {}, "--site is 'west', and the cohort in .* has patients of north, south"),
        ("north.csv", {"patch__size": 64}, "patch.size is 64, which does not fit in images"),
        ("north.csv", {"federation__secure": True}, "federation.secure is on"),
    ],
)
def test_a_site_that_cannot_take_part_is_told_before_it_connects(
    folders, tmp_path, manifest, changes, fault
):
    with pytest.raises(UserError, match=fault):
        participating.Participant(_job(folders, tmp_path, manifest, **changes), "west")


def test_both_sides_agree_on_what_the_weights_depend_on(folders, tmp_path):
    digest = agreement.digest_of(_job(folders, tmp_path, "all.csv").config)
    for same in ({"federation__overlap": 3}, {"data__path": "/elsewhere"}, {"name": "x"}):
        job = _job(folders, tmp_path, "north.csv", **same)
        assert agreement.digest_of(job.config) == digest
    for other in ({"seed": 7}, {"federation__lr": 0.1}, {"network__options": {"width": 4}}):
        job = _job(folders, tmp_path, "all.csv", **other)
        assert agreement.digest_of(job.config) != digest
