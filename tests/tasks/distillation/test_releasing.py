import functools
import json
import shutil

import jax
import numpy as np
import pytest
import scipy.special

from gxdistill import package
from gxdistill.errors import UserError
from gxdistill.privacy import statistics
from gxdistill.privacy.ledger import Ledger
from gxdistill.pytrees import Distilled
from gxdistill.receive.networks import replay_package
from gxdistill.storage import checkpoint
from gxdistill.tasks.distillation import assessing, distilling, releasing
from gxdistill.tasks.distillation.repeating import Recipe
from tests import small_jobs

_SMALL = {
    **small_jobs.RELEASE,
    "distill__precision": "uint8",
    "privacy__statistics__steps": 4,
    "privacy__statistics__checkpoint_every": 2,
}
make = functools.partial(small_jobs.make, **_SMALL)
pytestmark = pytest.mark.usefixtures("few_of_the_prior")


@pytest.fixture(scope="module")
def private(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("private")
    distilling.distil(make(workdir))
    return workdir


def test_the_package_trains_networks_and_tells_what_it_cost(private):
    content = package.load(private / "package.gxd")
    manifest = content.manifest
    assert len(manifest.ledger.events) == 1
    assert manifest.ledger.events[0].count == 1
    assert manifest.ledger.epsilon <= 4.0
    assert manifest.ledger.unit == "patient"
    assert manifest.precision == "uint8"
    # What was measured on patients without noise stays in the hospital.
    assert manifest.cohort is None
    assert manifest.likeness is None
    assert manifest.results == {}
    assert manifest.normalisation.mean == (0.5,)
    assert manifest.distillation.outer_steps == 4
    assert manifest.distillation.started_from == "statistics"
    network = make(private).problem.network
    record = {"init": "fresh", "count": 1, "seed": 0}
    trained = replay_package(content, network, record)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(trained))


def test_a_run_interrupted_after_each_checkpoint_releases_once_and_ends_alike(
    private, tmp_path, monkeypatch
):
    said, save = [], checkpoint.save
    shutil.copy(private / releasing.RELEASED, tmp_path)  # The noise of two releases would differ.

    def save_and_interrupt(folder, step, *args, **options):
        save(folder, step, *args, **options)
        raise KeyboardInterrupt

    def release_again(*_, **__):
        raise AssertionError("released twice")

    monkeypatch.setattr(statistics, "release", release_again)
    job = make(tmp_path, said.append)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", save_and_interrupt)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                distilling.distil(job)
    distilling.distil(job)
    resumed = [line for line in said if "resuming" in line or "already" in line]
    assert resumed == ["matching: resuming at step 2", "matching: done already"]
    assert (tmp_path / "package.gxd").read_bytes() == (private / "package.gxd").read_bytes()


def test_the_noise_is_not_of_the_seed(private, tmp_path):
    distilling.distil(make(tmp_path))
    with (
        np.load(private / releasing.RELEASED) as first,
        np.load(tmp_path / releasing.RELEASED) as again,
    ):
        assert not np.array_equal(first["sums"], again["sums"])


def test_a_threshold_is_chosen_on_the_packages_own_patches(tmp_path):
    small_jobs.write_cohort(tmp_path / "data", masks=False, side=16)
    job = small_jobs.make(
        tmp_path / "run", data__kind="manifest", data__path=str(tmp_path / "data"),
        data__downscale=1, patch__size=16, patch__stride=16, decision__rule="soft", **_SMALL,
    )  # fmt: skip
    network = job.problem.network
    rng = np.random.default_rng(0)
    images = rng.normal(size=(4, 5, *job.problem.shape)).astype(np.float32)
    labels = np.eye(2)[rng.integers(0, 2, (4, 5))].astype(np.float32)
    params = jax.vmap(network.init)(jax.random.split(jax.random.key(0), 3))
    chosen = assessing.on_distilled(job, params, Distilled(images, labels, np.zeros(4)))
    assert (chosen.share_positive, chosen.networks) == (None, 3)
    scores, truth = np.zeros(20), labels.reshape(20, 2)[:, 1] == 1
    for i in range(3):
        logits = network.apply(
            jax.tree.map(lambda x, i=i: x[i], params), images.reshape(20, *job.problem.shape)
        )
        scores += scipy.special.softmax(np.asarray(logits), axis=1)[:, 1] / 3

    def harmonic_mean(tau):
        sen, spe = (scores[truth] >= tau).mean(), (scores[~truth] < tau).mean()
        return 2 * sen * spe / (sen + spe) if sen + spe else 0

    best = max(harmonic_mean(tau) for tau in (*scores, 2.0))
    assert harmonic_mean(chosen.tau) == pytest.approx(best)


def test_the_ledger_lies_beside_the_statistics_and_in_the_folder(private):
    ledger = Ledger.from_dict(json.loads((private / "ledger.json").read_text()))
    with np.load(private / releasing.RELEASED, allow_pickle=False) as arrays:
        assert Ledger.from_dict(json.loads(str(arrays["about"]))["ledger"]) == ledger
    assert ledger.releases == 1
    assert "sampling" not in " ".join(ledger.uncovered)


def test_statistics_of_other_settings_are_not_taken(private, tmp_path):
    shutil.copy(private / releasing.RELEASED, tmp_path)
    job = make(tmp_path, privacy__epsilon=2.0)
    with pytest.raises(UserError, match="released by other settings"):
        distilling.distil(job)
    assert not (tmp_path / "package.gxd").exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"privacy__statistics__checkpoint_every": 3}, "not a multiple"),
        (
            {
                "privacy__statistics__cell": 500,
                "privacy__statistics__features": "oriented_gradients",
            },
            "cell of 500",
        ),
        ({"data__levels": "measured"}, "data.levels"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_anything_is_released(tmp_path, changes, says):
    with pytest.raises(UserError, match=says):
        distilling.distil(small_jobs.make(tmp_path, **(_SMALL | changes)))
    assert not (tmp_path / releasing.RELEASED).exists()


def test_a_recipe_repeats_the_release_with_noise_of_its_own(private, tmp_path):
    recipe = Recipe(make(private))
    folders = [tmp_path / "north", tmp_path / "south"]
    sets = [recipe(make(folder), "repeating") for folder in folders]
    shapes = [data.images.shape for data in sets]
    assert shapes == [package.load(private / "package.gxd").distilled.images.shape] * 2
    assert not np.allclose(sets[0].images, sets[1].images)
    assert all((folder / releasing.RELEASED).exists() for folder in folders)
