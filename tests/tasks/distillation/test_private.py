import functools
import json
import re

import jax
import numpy as np
import pytest

from gxdistill import package, storage
from gxdistill.errors import UserError
from gxdistill.package.seeds import Use
from gxdistill.privacy.events import Event
from gxdistill.privacy.ledger import BudgetError, Ledger
from gxdistill.storage import checkpoint
from gxdistill.tasks.distillation import compressing, distilling, private, weights
from tests import small_jobs

PRIVATE = {
    "privacy__mechanism": "meta_gradient",
    "privacy__delta": 1e-3,
    "privacy__patients_per_step": 4,
    "privacy__patches_per_patient": 2,
    "privacy__noise": 1.2,  # A constant of the program, which is compiled once for all tests.
    "privacy__threshold_noise": 4.0,
    "data__levels": "fixed",
}
make = functools.partial(small_jobs.make, **PRIVATE)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A private job that ran to its end, with what it said."""
    folder, said = tmp_path_factory.mktemp("private"), []
    distilling.distil(make(folder, said.append))
    return folder, said


def test_the_package_states_its_guarantee_and_the_budget_is_kept(done):
    manifest = package.load(done[0] / "package.gxd").manifest
    ledger = Ledger.from_dict(package.to_json(manifest.ledger))
    assert [(event.what, event.count) for event in ledger.events] == [
        ("meta-gradient", 8),
        ("scores that the threshold is chosen on", 1),
    ]
    assert 4 < ledger.epsilon() < 8
    assert ledger.epsilon() == manifest.ledger.epsilon
    assert Ledger.from_dict(storage.read_json(done[0] / "ledger.json")) == ledger
    assert ledger.uncovered[1:] == private.UNCOVERED
    assert "number of training patients" in ledger.uncovered[0]
    assert f"privacy: {ledger.statement()}" in done[1]


def test_noise_is_fitted_so_that_all_releases_are_within_the_budget(tmp_path):
    steps = private.private_steps(make(tmp_path, privacy__noise=0.0, privacy__epsilon=2.0))
    key, ledger = jax.random.key(0), steps.ledger
    for first in range(0, 8, 2):
        ledger = steps.book(ledger, key, first, 2)
    tau = Event("tau", "gaussian", 1.0, 4.0)
    assert 1.98 < ledger.book(tau).epsilon() <= 2.0
    with pytest.raises(BudgetError):
        steps.book(ledger.book(tau), key, 8, 2)
    assert steps.sampler.probability == 0.5
    assert ledger.events[0].sensitivity == 1.0


def test_what_is_measured_on_patients_stays_with_them(done):
    manifest = package.load(done[0] / "package.gxd").manifest
    assert (manifest.cohort, manifest.likeness, manifest.results) == (None, None, {})
    assert manifest.normalisation == ((0.5,), (0.25,))
    assert manifest.distillation.started_from == "noise"
    assert manifest.decision.tau * 20 == pytest.approx(round(manifest.decision.tau * 20))
    text = package.describe(package.load(done[0] / "package.gxd"), done[0] / "package.gxd")
    assert "No guarantee" not in text


def _state_key(folder):
    job = make(folder)
    loop_key = job.problem.key(Use.LOOP)
    like = distilling.method.build(job.problem, job.config.distill, lambda _: None)[1]
    _, state, metadata = checkpoint.restore(folder / "checkpoints", like)
    return state.key, loop_key, metadata


def test_the_key_of_the_noise_is_not_that_of_the_published_seed(done, tmp_path):
    key, of_seed, metadata = _state_key(done[0])
    assert (jax.random.key_data(key) != jax.random.key_data(of_seed)).any()
    assert metadata["ledger"]["events"][0]["count"] == 8
    digits = re.sub(r"\D", " ", (done[0] / "package.gxd").read_bytes().decode("latin1")).split()
    assert not {str(word) for word in np.asarray(jax.random.key_data(key))} & {*digits}
    distilling.distil(make(tmp_path))
    other = package.load(tmp_path / "package.gxd").distilled
    ours = package.load(done[0] / "package.gxd").distilled
    assert not np.allclose(other.images, ours.images)  # One seed, other noise.


def test_a_private_run_interrupted_after_each_checkpoint_ends_as_an_uninterrupted_one(
    tmp_path, monkeypatch
):
    fixed = jax.random.key(5, impl="threefry2x32")
    monkeypatch.setattr(private, "secret_key", lambda: fixed)
    distilling.distil(make(tmp_path / "whole"))
    save = checkpoint.save

    def save_and_interrupt(folder, step, *args, **options):
        save(folder, step, *args, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", save_and_interrupt)
        for _ in range(4):
            with pytest.raises(KeyboardInterrupt):
                distilling.distil(make(tmp_path / "parts"))
            # Another start draws another key, and goes on with that of the checkpoint.
            patch.setattr(private, "secret_key", lambda: jax.random.key(6, impl="threefry2x32"))
    distilling.distil(make(tmp_path / "parts"))
    for name in ("package.gxd", "ledger.json", "history.jsonl"):
        whole, parts = (tmp_path / folder / name for folder in ("whole", "parts"))
        assert whole.read_bytes() == parts.read_bytes()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"distill__started_from": "mixture"}, "distill.started_from is 'mixture', which releases"),
        ({"distill__started_from": "real"}, "distill.started_from is 'real', which releases"),
        ({"distill__started_labels": "networks"}, "distill.started_labels is 'networks', which"),
        ({"decision__rule": "zones"}, "decision.rule is 'zones', which releases what"),
        ({"data__levels": "measured"}, r"data.levels is 'measured', .* --config.data.levels=fixed"),
        ({"privacy__delta": 0.0}, "privacy.delta is 0.0"),
        ({"privacy__epsilon": 0.0}, "privacy.epsilon is 0.0"),
    ],
)
def test_what_no_noise_covers_is_refused(tmp_path, change, reason):
    with pytest.raises(UserError, match=reason):
        make(tmp_path, **change)


def test_what_learns_without_noise_is_refused_beside_a_promise(done):
    job = make(done[0])
    for compress in (compressing.compress, weights.compress):
        with pytest.raises(UserError, match="learns from patients without noise"):
            compress(job, 1.0)


def test_images_that_are_streamed_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"data.feed streams them. Set --config.data.feed=resident"):
        distilling.distil(make(tmp_path, data__feed="streaming"))


def test_noise_of_ones_own_ends_the_run_at_its_budget(tmp_path):
    said = []
    distilling.distil(
        make(tmp_path, said.append, privacy__threshold_noise=1.0, privacy__epsilon=4.0)
    )
    (warning,) = (line for line in said if line.startswith("warning: distilling ends at step"))
    assert "above the budget of 4" in warning
    (withheld,) = (line for line in said if "no threshold is released" in line)
    manifest = package.load(tmp_path / "package.gxd").manifest
    assert manifest.ledger.events[0].count < 8
    assert manifest.ledger.epsilon <= 4
    assert manifest.decision is None
    assert withheld


def test_nothing_learned_releases_nothing(tmp_path):
    distilling.distil(make(tmp_path, distill__outer_steps=0, privacy__threshold_noise=0.0))
    ledger = package.load(tmp_path / "package.gxd").manifest.ledger
    assert (ledger.epsilon, ledger.events) == (0, ())


def test_without_a_mechanism_there_is_no_ledger(run):
    assert package.load(run / "package.gxd").manifest.ledger is None
    assert not (run / "ledger.json").exists()
    assert json.loads((run / "settings.json").read_text())["privacy"]["mechanism"] == "none"
