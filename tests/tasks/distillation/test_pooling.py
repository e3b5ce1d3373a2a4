import functools
import json

import numpy as np
import pytest

from gxdistill import package, storage
from gxdistill.errors import UserError
from gxdistill.tasks.distillation import distilling, pooling, releasing
from gxdistill.tasks.distillation.repeating import Recipe
from tests import small_jobs

make = functools.partial(small_jobs.make, **small_jobs.RELEASE)
pytestmark = pytest.mark.usefixtures("few_of_the_prior")


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory):
    """Releases of two hospitals, which spent epsilon 4 and 2."""
    folder = tmp_path_factory.mktemp("hospitals")
    for seed, (name, epsilon) in enumerate({"north": 4.0, "south": 2.0}.items()):
        job = small_jobs.make(
            folder / name, **small_jobs.RELEASE | {"privacy__epsilon": epsilon, "seed": seed}
        )
        releasing.distilled(job)
    return [str(folder / name / pooling.RELEASE) for name in ("north", "south")]


def _members(path):
    with open(path, "rb") as file:
        members = storage.unpack(file.read(), path)
    return json.loads(bytes(members.pop("release.json"))), members


def _changed(tmp_path, path, change):
    """A release that was changed: `change(about, members)` works in place."""
    about, members = _members(path)
    change(about, members)
    changed = tmp_path / "changed.gxr"
    members |= {"release.json": json.dumps(about).encode()}
    changed.write_bytes(storage.pack(members))
    return str(changed)


def test_releases_are_added_up_and_nothing_of_a_patient_here(hospitals, tmp_path, monkeypatch):
    monkeypatch.setattr(releasing, "measured", None)  # Called, it would fail.
    job = make(tmp_path, privacy__statistics__releases=tuple(hospitals))
    released, ledger = pooling.pooled(job, releasing.make_features(job))
    told = [_members(path) for path in hospitals]
    for name, total in vars(released.statistics).items():
        parts = [np.frombuffer(members[name], "<f4") for _, members in told]
        np.testing.assert_allclose(np.ravel(total), np.sum(parts, axis=0), rtol=1e-5, atol=1e-5)
        noises = [about["deviations"][name] for about, _ in told]
        assert float(released.deviations[name]) == pytest.approx(np.hypot(*noises), rel=1e-6)
    spent = [about["ledger"]["epsilon"] for about, _ in told]
    assert ledger.epsilon() == pytest.approx(max(spent)) == pytest.approx(4, abs=0.1)
    assert "patients of several of the hospitals" in ledger.statement()

    path = distilling.distil(job)
    manifest = package.load(path).manifest
    assert manifest.ledger.epsilon == pytest.approx(max(spent))
    assert manifest.distillation.started_from == "statistics"
    assert not (tmp_path / releasing.RELEASED).exists()
    assert not (tmp_path / pooling.RELEASE).exists()
    with pytest.raises(UserError, match="no shadow can be made"):
        Recipe(job).check_made(manifest)


def test_what_leaves_a_hospital_holds_no_digest_of_its_images(hospitals):
    about, members = _members(hospitals[0])
    assert about.keys() == {"made_by", "deviations", "ledger"}
    assert members.keys() == {"second", "sums", "pixel_second", "pixel_sums", "counts"}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"privacy__statistics__count": 11}, "by other settings than this job's: count differ"),
        ({"privacy__delta": 1e-4}, "states a guarantee for a patient at delta 0.0001"),
        ({"privacy__epsilon": 3.0}, "more than privacy.epsilon 3. Raise that"),
    ],
)
def test_releases_that_do_not_fit_the_job_are_refused(hospitals, tmp_path, settings, says):
    chosen = {**small_jobs.RELEASE, **settings, "privacy__statistics__releases": tuple(hospitals)}
    with pytest.raises(UserError, match=says):
        releasing.distilled(small_jobs.make(tmp_path, **chosen))


def test_a_release_named_twice_is_refused(hospitals, tmp_path):
    job = make(tmp_path, privacy__statistics__releases=(hospitals[0], hospitals[1], hospitals[0]))
    with pytest.raises(UserError, match="patients would count twice"):
        releasing.distilled(job)


def _without_noise(about, _):
    about["deviations"]["sums"] = 0.0


def _not_finite(_, members):
    members["counts"] = np.full(len(members["counts"]) // 4, np.nan, "<f4").tobytes()


def _too_long(_, members):
    members["sums"] = bytes(members["sums"]) * 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_without_noise, "does not tell how large its noise is"),
        (_not_finite, "`counts` with values that are no finite numbers"),
        (_too_long, "`sums` of another size than its settings make"),
        (lambda _, members: members.pop("sums"), "is no release of statistics"),
        (lambda about, _: about.update(made_by=[]), "by other settings"),
        (lambda about, _: about["ledger"].update(events=[]), "books no release in its ledger"),
    ],
)
def test_a_release_of_a_stranger_is_checked(hospitals, tmp_path, change, says):
    path = _changed(tmp_path, hospitals[0], change)
    job = make(tmp_path / "run", privacy__statistics__releases=(path,))
    with pytest.raises(UserError, match=says):
        releasing.distilled(job)
    assert not (tmp_path / "run" / releasing.RELEASED).exists()
